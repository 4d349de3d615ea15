"""What the kernel says of an emulator, read from files as it writes them; the programs that register one are not run."""

from __future__ import annotations

import pytest

from torchstrata import platforms
from torchstrata.errors import EmulatorError
from torchstrata.host import apt, emulator, superuser

ENTRY = "{state}\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: {flags}\noffset 0\nmagic 7f454c46\n"
"""Linux, Documentation/admin-guide/binfmt-misc.rst."""

FOREIGN = next(name for name in platforms.MACHINES if not platforms.is_native(name))


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Return a directory that stands for the kernel's."""
    monkeypatch.setattr(emulator, "REGISTERED", tmp_path)
    return tmp_path


def register(kernel, state="enabled", flags="PF"):
    """Write what the kernel shows of the emulator of another platform."""
    (kernel / "status").write_text("enabled\n")
    (kernel / emulator.name(FOREIGN)).write_text(ENTRY.format(state=state, flags=flags))


@pytest.mark.parametrize(
    ("state", "flags", "why"),
    [
        ("enabled", "PF", None),
        ("enabled", "OCF", None),
        ("disabled", "PF", "is disabled"),
        ("enabled", "P", "lacks the flag F"),
        ("enabled", "", "lacks the flag F"),
    ],
)
def test_containers_need_an_emulator_that_is_open(kernel, state, flags, why):
    """It must be enabled, and opened beforehand, since no container has its file."""
    register(kernel, state, flags)
    found = emulator.lacks(FOREIGN)
    assert found is None if why is None else why in found


def test_nothing_is_registered(kernel):
    """A kernel whose list is not mounted is told from one that lacks the emulator."""
    assert "is not mounted" in emulator.lacks(FOREIGN)
    (kernel / "status").write_text("enabled\n")
    assert emulator.lacks(FOREIGN) == f"the kernel knows no {emulator.name(FOREIGN)}"


def test_without_root_one_command_cures_it(kernel, monkeypatch):
    """Who may not install it is told in one line what root must run; it mounts, installs and enables."""
    monkeypatch.setattr(superuser, "is_possible", lambda: False)
    monkeypatch.setattr(apt, "is_here", lambda: True)
    with pytest.raises(EmulatorError) as caught:
        emulator.ensure(FOREIGN, print)
    assert caught.value.fix.startswith("run: sudo mount -t binfmt_misc")
    assert f"qemu-user-static binfmt-support arch-test && sudo update-binfmts --enable {emulator.name(FOREIGN)}" in caught.value.fix


def test_the_own_platform_needs_nothing(kernel, monkeypatch):
    """Programs of the machine itself run without any of that."""
    monkeypatch.setattr(superuser, "is_possible", lambda: False)
    native = next(name for name in platforms.MACHINES if platforms.is_native(name))
    emulator.ensure(native, pytest.fail)

"""What the kernel says of an emulator, read from files as it writes them; the programs that register one are not run."""

from __future__ import annotations

import subprocess

import pytest

from torchstrata import platforms, process
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
    assert f"qemu-user-static binfmt-support arch-test && (grep -qs ^enabled {kernel / emulator.name(FOREIGN)} || " in caught.value.fix


def program(folder, name, text):
    """Write a program of the shell."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def rules(tmp_path, monkeypatch):
    """Return a directory with what Debian 13's QEMU gives systemd; update-binfmts knows nothing of it."""
    folder = tmp_path / "binfmt.d"
    folder.mkdir()
    (folder / f"{emulator.name(FOREIGN)}.conf").write_text(":qemu:M::magic:mask:interpreter:OPF\n")
    monkeypatch.setattr(emulator, "RULES", folder)
    monkeypatch.setattr(emulator, "FORMATS", tmp_path / "binfmts")
    return folder


@pytest.mark.parametrize(("by_systemd", "register"), [(False, ":qemu:M::magic:mask:interpreter:OPF\n"), (True, "")])
def test_the_cure_works_where_update_binfmts_knows_no_qemu(kernel, rules, monkeypatch, by_systemd, register):
    """On Debian 13 it ends well where systemd has registered QEMU; elsewhere it tells the kernel itself."""
    (kernel / "status").write_text("enabled\n")
    (kernel / "register").touch()
    monkeypatch.setattr(superuser, "is_possible", lambda: False)
    monkeypatch.setattr(apt, "is_here", lambda: True)
    entry = ENTRY.format(state="enabled", flags="POF")
    installing = f"printf '{entry}' > {kernel / emulator.name(FOREIGN)}" if by_systemd else "true"
    for name, text in {"sudo": 'exec "$@"', "apt-get": installing.replace("\n", "\\n"), "update-binfmts": "exit 2"}.items():
        program(kernel / "bin", name, text)
    with pytest.raises(EmulatorError) as caught:
        emulator.require(FOREIGN)
    subprocess.run(caught.value.fix.removeprefix("run: "), shell=True, check=True, env={"PATH": f"{kernel / 'bin'}:/usr/bin:/bin"})
    assert (kernel / "register").read_text() == register


@pytest.mark.parametrize("is_known", [False, True])
def test_the_kernel_is_told_by_what_the_packages_have(kernel, rules, monkeypatch, is_known):
    """``update-binfmts`` enables what it knows, Debian 12's QEMU; that of Debian 13 is handed over as systemd would."""
    (kernel / "status").write_text("enabled\n")
    (kernel / "register").touch()
    if is_known:
        emulator.FORMATS.mkdir()
        (emulator.FORMATS / emulator.name(FOREIGN)).touch()
    program(kernel / "bin", "update-binfmts", f'echo "$@" > {kernel / "told"}; exit 1')
    monkeypatch.setenv("PATH", f"{kernel / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(superuser, "is_possible", lambda: True)
    monkeypatch.setattr(superuser, "run", process.run)
    monkeypatch.setattr(apt, "is_here", lambda: True)
    monkeypatch.setattr(apt, "install", lambda packages, report, unless: None)
    with pytest.raises(EmulatorError):
        emulator.ensure(FOREIGN, lambda line: None)
    assert (kernel / "told").exists() == is_known
    assert (kernel / "register").read_text() == ("" if is_known else ":qemu:M::magic:mask:interpreter:OPF\n")


@pytest.mark.parametrize(
    ("says", "is_old"),
    [
        ("qemu-aarch64 version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)", True),
        ("qemu-aarch64 version 8.1.5", True),
        ("qemu-aarch64 version 8.2.0", False),
        ("qemu-aarch64 version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)", False),
        ("nothing of the kind", False),
    ],
)
def test_an_old_qemu_is_told(kernel, says, is_old):
    """QEMU is asked for its version by what the registered link leads to, for the link's name changes what arguments mean."""
    real = program(kernel / "bin", "qemu-aarch64", f'case $0 in *-P) exit 1;; esac; echo "{says}"')
    link = kernel / "aarch64-binfmt-P"
    link.symlink_to(real)
    register(kernel)
    entry = kernel / emulator.name(FOREIGN)
    entry.write_text(entry.read_text().replace("/usr/libexec/qemu-binfmt/aarch64-binfmt-P", str(link)))
    told = emulator.concern(FOREIGN)
    assert (told is not None) == is_old
    assert told is None or "torch may end with signal 11; install QEMU 8.2 or newer" in told


def test_nothing_is_said_of_a_qemu_that_cannot_be_asked(kernel):
    """It may be registered by another machine's root, or not at all."""
    assert emulator.concern(FOREIGN) is None
    register(kernel)
    entry = kernel / emulator.name(FOREIGN)
    entry.write_text(entry.read_text().replace("/usr/libexec/", "/nowhere/"))
    assert emulator.concern(FOREIGN) is None


def test_the_own_platform_needs_nothing(kernel, monkeypatch):
    """Programs of the machine itself run without any of that."""
    monkeypatch.setattr(superuser, "is_possible", lambda: False)
    native = next(name for name in platforms.MACHINES if platforms.is_native(name))
    emulator.ensure(native, pytest.fail)

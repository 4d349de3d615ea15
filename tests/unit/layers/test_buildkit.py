"""What BuildKit says, and whose layers it exported."""

from __future__ import annotations

import pytest

from tests.parts import LOCKED
from torchstrata.errors import AbsentError, OsPartError, RegistryAuthError, RegistryError
from torchstrata.layers import buildkit

TAIL = """\
#19 [debian13-devel stage-0 1/2] RUN --mount=from=apt,source=/apt,target=/mnt     /mnt/install no-such-package
#19 1.234 Reading package lists...
#19 1.300 E: Unable to locate package no-such-package
#19 ERROR: process "/bin/sh -c /mnt/install no-such-package" did not complete successfully: exit code: 100
------
 > [debian13-devel stage-0 1/2] RUN --mount=from=apt,source=/apt,target=/mnt     /mnt/install no-such-package:
1.300 E: Unable to locate package no-such-package
------
ERROR: target debian13-devel: failed to solve: process "/bin/sh -c /mnt/install no-such-package" did not complete successfully: exit code: 100
"""


def test_steps_are_told_when_done() -> None:
    """One line per instruction, without mounts, with the OS and the time; BuildKit's own steps are not told."""
    lines: list[str] = []
    steps = buildkit.Steps(lines.append)
    for line in [*TAIL.splitlines(), "#3 [debian13-base internal] load .dockerignore", "#3 DONE 0.1s", "#19 DONE 2.5s", "#19 DONE 2.5s"]:
        steps(line)
    assert lines == ["debian13: RUN /mnt/install no-such-package (2.5 s)"]


def test_refusal_names_the_reason() -> None:
    """The error says what apt said, not that a process failed, and quotes the end of the step's output."""
    error = buildkit.refusal(TAIL)
    assert error.what == "an OS part cannot be built: E: Unable to locate package no-such-package"
    assert "| RUN /mnt/install no-such-package" in error.fix
    assert "| Reading package lists..." in error.fix


SUMMARY = """\
 > [stage 2/3] RUN apt-get update:
0.538 Err:1 a mirror
0.539 E: Failed to fetch a list
------
ERROR: failed to solve: exit code: 100
"""


@pytest.mark.parametrize(
    ("said", "why"),
    [(SUMMARY, "E: Failed to fetch a list"), ("ERROR: no builder found\n", "no builder found")],
)
def test_refusal_reads_what_is_left_where_the_step_is_out_of_sight(said: str, why: str) -> None:
    """Buildx says again at its end what a step said last; where no step failed, its own last words are the reason."""
    assert buildkit.refusal(said).what == f"an OS part cannot be built: {why}"


def test_labels_tell_whose_layer_is_whose() -> None:
    """Layers up to a flavour's label are its own; instructions that make no layer do not count."""
    history = [
        {"created_by": "ADD os.tar /"},
        {"created_by": "RUN a"},
        {"created_by": "LABEL torchstrata.flavour=base", "empty_layer": True},
        {"created_by": "ARG X", "empty_layer": True},
        {"created_by": "RUN b"},
        {"created_by": "LABEL torchstrata.flavour=devel", "empty_layer": True},
    ]
    assert buildkit.owners(history, ("base", "devel")) == ["base", "base", "devel"]


def test_missing_label_is_an_error_with_the_line_to_add() -> None:
    """A Dockerfile without its label cannot be told from its child."""
    with pytest.raises(OsPartError, match=r"LABEL torchstrata.flavour=devel"):
        buildkit.owners([{"created_by": "LABEL torchstrata.flavour=base", "empty_layer": True}, {"created_by": "RUN b"}], ("base", "devel"))


def test_history_reads_like_the_dockerfile() -> None:
    """Shell, build arguments and BuildKit's mark are left out of a layer's title."""
    assert buildkit.instruction("RUN |2 A=1 B=g++-14 g++-13 /bin/sh -c /mnt/install   cmake # buildkit") == "RUN /mnt/install cmake"
    assert buildkit.instruction("COPY rootfs / # buildkit") == "COPY rootfs /"


@pytest.mark.parametrize(
    ("why", "error"),
    [
        (f"{LOCKED.image}: not found", AbsentError),
        ('failed to do request: Head "https://r/": dial tcp: connection refused', RegistryError),
        ("pull access denied, repository does not exist or may require authorization", RegistryAuthError),
    ],
)
def test_an_os_image_that_cannot_be_had_is_told_from_a_step_that_failed(why: str, error: type[RegistryError]) -> None:
    """The error names the image, and each reason has its code."""
    found = buildkit.refusal(f"#3 ERROR: x\nERROR: failed to solve: failed to resolve source metadata for {LOCKED.image}: {why}\n")
    assert type(found) is error
    assert LOCKED.image in found.what

"""Languages of people's machines, which they pass on by ``-e``, an editor or a job: nothing complains, and text is UTF-8."""

from __future__ import annotations

import pytest

PROGRAMS = {
    "python": ("python", "-c", "import locale; locale.setlocale(locale.LC_ALL, ''); assert locale.nl_langinfo(locale.CODESET) == 'UTF-8'"),
    "perl": ("perl", "-e", "1"),
    "bash": ("bash", "-c", "x=\u00e9; test ${#x} = 1"),
}
COMMON = [{"LANG": "en_US.UTF-8"}, {"LC_ALL": "zh_CN.UTF-8"}, {"LANG": "de_DE.utf8", "LC_CTYPE": "UTF-8"}, {"LANG": "ja_JP"}, {"LC_ALL": "sr_RS.UTF-8@latin"}]


@pytest.fixture(scope="module")
def box(start_shared):
    """A container to look into."""
    return start_shared("sleep", "infinity")


@pytest.mark.parametrize("asked", COMMON, ids=lambda asked: "-".join(asked.values()))
@pytest.mark.parametrize("program", PROGRAMS)
def test_common(box, program, asked):
    """The locales of the world's languages are there without a start, as for ``docker exec -e`` and ``--entrypoint``."""
    done = box.run(*PROGRAMS[program], env=asked)
    assert (done.status, done.out + done.err) == (0, "")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", ["LANG", "LC_ALL", "LC_TIME"])
def test_unknown(box, program, name):
    """A name that nobody knows becomes C.UTF-8 before anything starts, and one line says so."""
    done = box.run("torchstrata-entrypoint", *PROGRAMS[program], env={name: "xx_YY.latin9"})
    lines = [line for line in done.err.splitlines() if not line.startswith("torchstrata: nothing is mounted") and "GPU" not in line]
    assert (done.status, lines) == (0, [f"torchstrata: {name}=xx_YY.latin9: no such locale here, C.UTF-8 is used"])


def test_another_codeset_is_not_taken_for_utf_8(box):
    """Who asks for Latin-1 does not get UTF-8 under its name."""
    assert box.run("python", "-c", "import locale; locale.setlocale(locale.LC_ALL, 'en_US.ISO-8859-1')").status == 1

"""Text in Chinese, Japanese and Korean in plots, without a setting, whoever the user is."""

from __future__ import annotations

import pytest

PLOT = """
import io, logging, warnings
import matplotlib
import matplotlib.pyplot as plt
warnings.simplefilter("error")
STYLES

def drawn(text, form="raw", **options):
    figure = plt.figure(figsize=(1, 1))
    figure.text(0.1, 0.5, text, fontsize=20, **options)
    content = io.BytesIO()
    figure.savefig(content, format=form)
    plt.close(figure)
    return content.getvalue()

for pair in ("准确", "けコ", "정확"):
    for options in ({}, {"fontweight": "bold"}, {"family": "serif"}):
        assert drawn(pair[0], **options) != drawn(pair[1], **options), pair
    assert drawn(f"${pair[0]}^2$") != drawn(f"${pair[1]}^2$"), pair
for form in ("pdf", "svg"):
    drawn("损失 損失 손실 $x^2$", form)
print(matplotlib.rcParams["font.family"], matplotlib.rcParams["lines.linewidth"])
"""
"""Fails where two characters look alike, as boxes do, and where anything warns."""


def plot(box, styles="", **options):
    """Run it and return what it has printed; nothing is complained of."""
    done = box.run("python", "-c", PLOT.replace("STYLES", styles), **options)
    assert (done.status, done.err) == (0, ""), done.err
    return done.out


@pytest.mark.parametrize(
    "styles",
    [
        pytest.param("", id="plain"),
        pytest.param("plt.style.use('seaborn-v0_8')", id="style", marks=pytest.mark.costly),
        pytest.param("plt.rcParams['font.family'] = ['serif']", id="own", marks=pytest.mark.costly),
        pytest.param("plt.rcdefaults()", id="defaults", marks=pytest.mark.costly),
    ],
)
def test_glyphs(start, styles):
    """Characters have glyphs, whatever style is used, in pictures, vector files and formulas."""
    box = start("sleep", "infinity")
    box.run("python", "-c", "import matplotlib.font_manager")
    plot(box, styles)


@pytest.mark.costly
def test_settings_of_the_user(start):
    """The user's own file of settings counts, and text has glyphs with it."""
    box = start("sleep", "infinity")
    box.run("python", "-c", "import matplotlib.font_manager")
    box.run("sh", "-c", "mkdir -p ~/.config/matplotlib && printf 'font.family: monospace\\nlines.linewidth: 7' >~/.config/matplotlib/matplotlibrc")
    assert plot(box) == "['monospace'] 7.0\n"


def test_user_without_a_home(start):
    """So it is for a user who may write nothing but /tmp, and has no cache."""
    box = start("sleep", "infinity", user="4242:4242", read_only=True, tmpfs={"/tmp": "mode=1777"})
    done = box.run("python", "-c", PLOT.replace("STYLES", ""))
    assert done.status == 0, done.err
    assert "Glyph" not in done.err
    assert "does not have a glyph" not in done.err

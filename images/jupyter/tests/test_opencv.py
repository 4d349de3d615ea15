"""OpenCV: the image's own works, and the OS has what all of OpenCV's wheels load, since other packages bring them."""

from __future__ import annotations

import pytest

NEEDED = (
    "libGL.so.1",
    "libICE.so.6",
    "libSM.so.6",
    "libX11.so.6",
    "libXext.so.6",
    "libglib-2.0.so.0",
    "libgthread-2.0.so.0",
    "libstdc++.so.6",
    "libxcb.so.1",
    "libz.so.1",
)
"""What the objects of opencv-python and opencv-contrib-python 4.14 and 5.0 need that is not in the wheels themselves (readelf -d, 2026-11-29)."""


@pytest.mark.parametrize("library", NEEDED)
def test_libraries_of_the_other_wheels(shared, library):
    """The loader finds a library that OpenCV's wheels with windows load when they are imported."""
    done = shared.run("python", "-c", f"import ctypes; ctypes.CDLL({library!r})")
    assert done.status == 0, done.err


def test_opencv(shared):
    """OpenCV writes a picture and reads the same."""
    code = "import cv2, numpy; a = numpy.arange(48, dtype='uint8').reshape(4, 4, 3); b = cv2.imdecode(cv2.imencode('.png', a)[1], 1); print((a == b).all())"
    assert shared.run("python", "-c", code).out == "True\n"

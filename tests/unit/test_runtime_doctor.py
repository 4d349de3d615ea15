"""What the doctor says of packages that lack files."""

from __future__ import annotations

import pytest
from container import doctor


@pytest.fixture
def venv(tmp_path):
    """An environment with two packages that share a file, as OpenCV's do."""
    site = tmp_path / "lib/python3.13/site-packages"
    for name in ("opencv_python_headless", "opencv_python"):
        info = site / f"{name}-5.0.dist-info"
        info.mkdir(parents=True)
        (info / "RECORD").write_text(f"cv2/__init__.py,,\ncv2/__pycache__/gone.pyc,,\n{info.name}/RECORD,,\n")
    (site / "cv2").mkdir()
    (site / "cv2/__init__.py").touch()
    return tmp_path


def test_packages_that_are_whole(venv):
    """Packages with all their files are well; bytecode may be missing."""
    assert [(finding.severity, finding.what) for finding in doctor.packages(venv)] == [(doctor.GOOD, f"2 in {venv}, all with their files")]


def test_package_that_lost_files(venv):
    """After the removal of one of two that share files, the doctor names the other, and what puts it right."""
    site = venv / "lib/python3.13/site-packages"
    (site / "cv2/__init__.py").unlink()
    (site / "opencv_python-5.0.dist-info/RECORD").unlink()
    (found,) = doctor.packages(venv)
    assert (found.severity, found.fix) == (doctor.WARNING, "pip install --force-reinstall --no-deps opencv_python_headless==5.0")
    assert found.what.startswith("opencv_python_headless 5.0 lacks 1 of its files")


def test_text_of_users_moves_no_cursor():
    """What a user has named, such as the parent of a mount, fakes no line of the doctor's."""
    found = doctor.Finding("mounts", doctor.WARNING, "/a\x1b[2J\nok", "b\nc")
    assert doctor._text(found).splitlines() == [f"{'warning':8} {'mounts':17} /a?[2J?ok", f"{'':27}-> b?c"]

"""What is read of packages and files, in an image or here."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from torchstrata.drift import contents
from torchstrata.drift.contents import Contents, FileState

STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9
Description: C library
 Version: 9 in a description
Homepage: https://example/

Package: less
Status: deinstall ok config-files
Architecture: amd64
Version: 590
"""


@pytest.fixture
def place(tmp_path):
    """Give a site-packages with one package, whose files are as its RECORD says."""
    site = tmp_path / "site-packages"
    info = site / "Six_Pack-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "six.py").write_text("x = 1\n")
    (site / "gone.py").write_text("")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: Six_Pack\nVersion: 1.0\n\nVersion: 9\n")
    (info / "RECORD").write_text(
        "six.py,sha256=nia_NpkRxFwkPGhBR7I_yeHc_PJX0pmhxjIBam_NM_Q,6\n"
        "gone.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n"
        "__pycache__/six.pyc,,\nSix_Pack-1.0.dist-info/RECORD,,\n../bin/six,,\n"
    )
    return site


def test_packages_of_dpkg():
    """Those that are installed; what is left of others is no package, and descriptions are no fields."""
    assert contents.status(STATUS) == {"libc6:amd64": "2.36-9"}


@pytest.mark.parametrize(
    ("direct", "source", "editable"),
    [
        (None, "", False),
        ({"url": "file:///w/six.whl", "archive_info": {}}, "file:///w/six.whl", False),
        ({"url": "file:///src", "dir_info": {"editable": True}}, "file:///src", True),
        ({"url": "file:///src", "dir_info": {}}, "file:///src", False),
        ({"url": "https://example/six", "vcs_info": {"vcs": "git", "commit_id": "abc"}}, "git+https://example/six@abc", False),
        (
            {"url": "https://example/six", "vcs_info": {"vcs": "git", "commit_id": "abc"}, "subdirectory": "py"},
            "git+https://example/six@abc#subdirectory=py",
            False,
        ),
    ],
)
def test_python_packages(place, direct, source, editable):
    """By normal name, with where they came from as a requirement says it."""
    if direct:
        (place / "Six_Pack-1.0.dist-info" / "direct_url.json").write_text(json.dumps(direct))
    (found,) = contents.wheels([str(place)])
    assert (found.name, found.version, found.place) == ("six-pack", "1.0", str(place))
    assert (found.source, found.editable) == (source, editable)


def test_edited_files(place):
    """Other content, or gone; bytecode and what has no hash is left out."""
    found = contents.wheels([str(place)])
    assert contents.edited(found) == {}
    (place / "six.py").write_text("x = 2\n")
    (place / "gone.py").unlink()
    assert contents.edited(found) == {f"{place}/six.py": "six-pack", f"{place}/gone.py": "six-pack"}


def test_owners(place, monkeypatch, tmp_path):
    """Of files, of directories by what is in them, and of what dpkg has brought."""
    monkeypatch.setattr(contents, "LISTS", str(tmp_path / "info"))
    (tmp_path / "info").mkdir()
    (tmp_path / "info" / "less.list").write_text("/.\n/usr/bin\n/usr/bin/less-of-a-test\n")
    asked = [f"{place}/six.py", f"{place}/__pycache__", f"{place.parent}/bin/six", f"{place}/other.py", "/usr/bin/less-of-a-test"]
    found = contents.owners(asked, contents.wheels([str(place)]))
    assert found == {asked[0]: "wheel six-pack", asked[1]: "wheel six-pack", asked[2]: "wheel six-pack", asked[4]: "package less"}


def test_records_lead_through_the_links_of_cuda():
    """What site-packages has of NVIDIA lies elsewhere, also what an older wheel has beside ``nvidia``; scripts and other packages lie where they say."""
    site = "/opt/venv/lib/python3.13/site-packages"
    found = contents.recorded("nvidia/nccl/lib/libnccl.so.2,sha256=a,1\ncusparselt/lib/l.so,,\n../../../bin/tool,,\nnvidia_ml/a.py,,\n", site, contents.SHARED)
    cuda = {"/opt/cuda/nvidia/nccl/lib/libnccl.so.2": "sha256=a", "/opt/cuda/cusparselt/lib/l.so": ""}
    assert found == cuda | {"/opt/venv/bin/tool": "", f"{site}/nvidia_ml/a.py": ""}


def test_owners_where_cuda_is_linked_in_part(tmp_path, monkeypatch):
    """An older cuSPARSELt from pip lies in site-packages itself, in images whose own has no such directory."""
    site, cuda = tmp_path / "site-packages", tmp_path / "cuda"
    info = site / "torch-2.6.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Name: torch\nVersion: 2.6\n")
    (info / "RECORD").write_text("nvidia/a.so,,\ncusparselt/b.so,,\n")
    (site / "cusparselt").mkdir()
    (cuda / "nvidia").mkdir(parents=True)
    (site / "nvidia").symlink_to(cuda / "nvidia")
    monkeypatch.setattr(contents, "CUDA", str(cuda))
    asked = [f"{cuda}/nvidia/a.so", f"{site}/cusparselt/b.so", f"{cuda}/cusparselt/b.so"]
    assert contents.owners(asked, contents.wheels([str(site)])) == dict.fromkeys(asked[:2], "wheel torch")


@pytest.mark.parametrize("document", ['{"url": "file', "[]", "{}", '{"url": "x", "vcs_info": {}}', '{"url": "x", "dir_info": 1}'])
def test_damaged_files_of_a_package_say_nothing(document):
    """As a full disk leaves them: the package is compared all the same."""
    assert contents.wheel("/x.dist-info", "Name: x\nVersion: 1\n", document, 0).source == ""
    assert contents.recorded("x/a.py,sha256=a,1\nx/b", "/site", ()) == {"/site/x/a.py": "sha256=a", "/site/x/b": ""}


def test_states(tmp_path):
    """Of files by content, of links by where they lead, of what is not there."""
    (tmp_path / "file").write_text("")
    (tmp_path / "file").chmod(0o640)
    (tmp_path / "link").symlink_to("file")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert contents.state(f"{tmp_path}/file", "wheel x") == FileState("file", 0o640, os.getuid(), os.getgid(), empty, "wheel x")
    assert contents.state(f"{tmp_path}/link")[::4] == ("link", "file")
    assert contents.state(f"{tmp_path}/nothing", "wheel x") == FileState(owner="wheel x")


def test_it_runs_as_a_program(tmp_path):
    """As it does in images: alone, with a question in, and an answer that reads back."""
    (tmp_path / "a").write_text("")
    program = contents.__loader__.get_data(contents.__file__).decode().replace('"/var/lib/dpkg/status"', repr(str(tmp_path / "status")))
    (tmp_path / "status").write_text(STATUS)
    question = json.dumps([f"{tmp_path}/a"])
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], input=question, capture_output=True, text=True, check=True)
    found = contents.decode(done.stdout)
    assert found.packages == {"libc6:amd64": "2.36-9"}
    assert contents.decode(contents.encode(found)) == found == Contents(found.wheels, found.packages, {f"{tmp_path}/a": found.files[f"{tmp_path}/a"]})

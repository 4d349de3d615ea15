"""What tags of OS images name, as buildx tells it: its answers are those of buildx 0.13 and a registry on loopback."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scripts import script
from torchstrata.errors import AbsentError, RegistryAuthError, RegistryError
from torchstrata.layers import image_tags

TAG = "docker.io/library/ubuntu:24.04"
MANIFEST = '{"schemaVersion": 2, "config": {"digest": "sha256:%s", "size": 2}, "layers": []}' % ("c" * 64)
ITSELF = f"sha256:{hashlib.sha256(MANIFEST.encode()).hexdigest()}"

Buildx = Callable[..., None]


def index(*platforms: tuple[str, str]) -> str:
    """Return an index that has an image for each platform, whose digest is told by its place."""
    found = [
        {"digest": f"sha256:{str(place) * 64}", "size": 5, "platform": {"os": system, "architecture": architecture}}
        for place, (system, architecture) in enumerate(platforms)
    ]
    return json.dumps({"schemaVersion": 2, "manifests": found})


@pytest.fixture
def buildx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Buildx:
    """Let ``docker`` be a program that answers for some images, fails with some words for all others, and knows some mirrors."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def write(answers: dict[str, str], config: str = "", refusal: str = "not found", mirrors: tuple[str, ...] = ()) -> None:
        cases = "".join(f"*' {image}') cat <<'END'\n{answer}\nEND\n;;\n" for image, answer in answers.items())
        told = json.dumps({"Mirrors": mirrors or None})
        text = (
            f'set -o pipefail\necho "$@" >>"{tmp_path}/asked"\n'
            f"case \"$*\" in info*) echo '{told}' ;; *--format*) echo '{config}' ;;\n"
            f"{cases}*) echo 'ERROR: {refusal}' >&2; exit 1 ;; esac | head -c -1"
        )
        script(tmp_path / "docker", text, "/bin/bash")

    return write


def test_of_an_index_the_platforms_image_counts(buildx: Buildx) -> None:
    """Other platforms may be built anew as they like; attestations, which have none, do not count."""
    buildx({TAG: index(("linux", "arm64"), ("unknown", "unknown"), ("linux", "amd64"))})
    assert image_tags.pinned(TAG) == f"{TAG}@sha256:{'2' * 64}"


def test_an_image_without_an_index_is_named_itself(buildx: Buildx) -> None:
    """Its config says what it runs on."""
    buildx({TAG: MANIFEST}, config='{"os": "linux", "architecture": "amd64"}')
    assert image_tags.pinned(TAG) == f"{TAG}@{ITSELF}"


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (index(("linux", "arm64"), ("linux", "s390x")), "for linux/amd64, but for linux/arm64, linux/s390x"),
        (MANIFEST, "has no image for linux/amd64, but for linux/riscv64"),
        (index(), "has no image for linux/amd64, but for nothing"),
        ("<html>", ""),
        ("[]", ""),
        ('{"manifests": [{"digest": "sha256:x", "size": 1}]}', ""),
    ],
)
def test_a_tag_without_the_platform_is_refused(buildx: Buildx, answer: str, what: str) -> None:
    """The error says what it is for; so is whatever else a registry sends."""
    buildx({TAG: answer}, config='{"os": "linux", "architecture": "riscv64"}')
    with pytest.raises(RegistryError, match=what or None):
        image_tags.pinned(TAG)


@pytest.mark.parametrize(
    ("said", "error", "cure"),
    [
        (f"{TAG}: not found", AbsentError, "matrix.yaml"),
        ('failed to do request: Head "https://r/": dial tcp: lookup r: no such host', RegistryError, "can be reached"),
        ("pull access denied, repository does not exist or may require authorization", RegistryAuthError, "docker login docker.io"),
        ("unexpected status from HEAD request to https://r/: 403 Forbidden", RegistryAuthError, "docker login docker.io"),
    ],
)
def test_each_reason_has_its_error_and_cure(buildx: Buildx, said: str, error: type[RegistryError], cure: str) -> None:
    """A tag that is gone, a registry that does not answer, and a login that lacks."""
    buildx({}, refusal=said)
    with pytest.raises(error) as caught:
        image_tags.pinned(TAG)
    assert type(caught.value) is error
    assert TAG in caught.value.what
    assert cure in caught.value.fix


def test_the_engines_mirrors_are_asked_first(buildx: Buildx, tmp_path: Path) -> None:
    """One that lacks the image is passed over, and one whose address is none; the lock names the public registry, where others find it too."""
    found = "mirror.example:5000/hub/library/ubuntu:24.04"
    buildx({found: index(("linux", "amd64"))}, mirrors=("https://first.example/", "https://[none/", "https://mirror.example:5000/hub/"))
    assert image_tags.pinned(TAG) == f"{TAG}@sha256:{'0' * 64}"
    asked = [line.split()[-1] for line in (tmp_path / "asked").read_text().splitlines()[1:]]
    assert asked == ["first.example/library/ubuntu:24.04", found]


def test_mirrors_stand_for_the_public_registry_alone(buildx: Buildx, tmp_path: Path) -> None:
    """Another one is asked itself."""
    image = "registry.example/ubuntu:24.04"
    buildx({image: index(("linux", "amd64"))}, mirrors=("https://first.example/",))
    assert image_tags.pinned(image) == f"{image}@sha256:{'0' * 64}"
    assert len((tmp_path / "asked").read_text().splitlines()) == 1

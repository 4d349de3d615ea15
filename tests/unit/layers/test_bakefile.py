"""The bake definition of OS parts."""

from __future__ import annotations

from pathlib import Path

from msgspec import structs

from tests.parts import DEBIAN13, UBUNTU
from torchstrata.layers import bakefile
from torchstrata.layers.bakefile import Job
from torchstrata.matrix import matrix

EPOCH = 1_795_478_400
ARM = structs.replace(DEBIAN13, platform="linux/arm64")


def job(system: matrix.OperatingSystem = DEBIAN13, below: str = "oci-layout:///store@sha256:0", **changed: object) -> Job:
    """Return the job that builds all flavours."""
    known = {"flavours": ("base", "devel"), "parent": "os", "known": 1, "epoch": EPOCH}
    return Job(system=system, below=below, **{**known, **changed})  # type: ignore[arg-type]


def defined(*jobs: Job, exporter: bakefile.Exporter = "layout") -> dict[str, dict[str, object]]:
    """Return the targets of a definition."""
    targets: dict[str, dict[str, object]] = bakefile.definition(jobs, Path("/in"), Path("/out"), exporter, {"http_proxy": "http://proxy"})["target"]
    return targets


def test_flavours_are_linked_through_contexts() -> None:
    """The first flavour starts from what lies below, each next one from the target before it, never from a tag."""
    targets = defined(job())
    assert targets["debian13-base"]["contexts"] == {"os": "oci-layout:///store@sha256:0", "apt": "target:debian13-apt"}
    assert targets["debian13-devel"]["contexts"] == {"base": "target:debian13-base", "apt": "target:debian13-apt"}


def test_only_the_top_is_exported() -> None:
    """Layers leave BuildKit once, uncompressed; no other target makes an image."""
    outputs = {name: target["output"] for name, target in defined(job()).items()}
    assert outputs.pop("debian13-devel") == ["type=oci,tar=false,dest=/out/debian13-devel,compression=uncompressed"]
    assert set(map(str, outputs.values())) == {"['type=cacheonly']"}


def test_all_systems_are_in_one_definition() -> None:
    """Two systems are two groups of targets of one bake; bake allows no dots in their names."""
    definition = bakefile.definition([job(), job(UBUNTU, "docker-image://ubuntu@sha256:0")], Path("/in"), Path("/out"), "layout", {})
    assert definition["group"]["default"]["targets"] == ["debian13-devel", "ubuntu24_04-devel"]
    assert not [name for name in definition["target"] if "." in name]


def test_another_platform_is_named_and_the_default_one_is_not() -> None:
    """All targets of a job are of its platform, its own `apt` included; those of the default platform stay what they were."""
    targets = defined(job(), job(ARM, parent="os"))
    assert {name for name, target in targets.items() if target.get("platforms") == ["linux/arm64"]} == {
        "debian13-arm64-apt",
        "debian13-arm64-base",
        "debian13-arm64-devel",
    }
    assert not [name for name in defined(job()) if "platforms" in targets[name]]


def test_package_lists_are_never_from_a_cache() -> None:
    """apt-get update runs in every bake; what it finds decides whether the installations do."""
    assert defined(job())["debian13-apt"]["no-cache"] is True


def test_who_installs_nothing_waits_for_no_package_lists() -> None:
    """A mirror is asked where a flavour of the job installs something, and not for those that do not."""
    targets = defined(job(plain=frozenset({"devel"})))
    assert ("apt" in targets["debian13-base"]["contexts"], "apt" in targets["debian13-devel"]["contexts"]) == (True, False)  # type: ignore[operator]
    assert "debian13-apt" not in defined(job(plain=frozenset({"base", "devel"})))


def test_every_stage_knows_its_time_and_compilers() -> None:
    """SOURCE_DATE_EPOCH comes from the lock, compilers from the matrix, proxies from the host."""
    args = defined(job())["debian13-devel"]["args"]
    assert args == {"PARENT": "base", "SOURCE_DATE_EPOCH": str(EPOCH), "COMPILERS": "g++-14 g++-13", "http_proxy": "http://proxy"}


def test_classic_store_adds_the_os_image_as_a_tar() -> None:
    """The classic store knows no OCI layouts: a target unpacks the OS image, and the result is an image of the engine."""
    targets = defined(job(below="/in/below"), exporter="image")
    assert targets["debian13-os"]["dockerfile-inline"] == "FROM scratch\nADD os.tar /\n"
    assert targets["debian13-base"]["contexts"] == {"os": "target:debian13-os", "apt": "target:debian13-apt"}
    assert targets["debian13-devel"]["output"] == ["type=docker,name=torchstrata-build:debian13-devel"]


def test_an_os_image_of_a_registry_gets_dpkgs_configuration() -> None:
    """Bootstrapped ones have it from the start: what packages leave out is the same on all OSes. A question changes nothing."""
    job_of_image = job(UBUNTU, "docker-image://ubuntu:24.04@sha256:0", known=0)
    targets = defined(job_of_image)
    assert targets["ubuntu24_04-os"]["dockerfile-inline"] == "FROM os\nCOPY dpkg.cfg /etc/dpkg/dpkg.cfg.d/99torchstrata\n"
    assert targets["ubuntu24_04-os"]["contexts"] == {"os": "docker-image://ubuntu:24.04@sha256:0"}
    assert targets["ubuntu24_04-base"]["contexts"] == {"os": "target:ubuntu24_04-os", "apt": "target:ubuntu24_04-apt"}
    asked = bakefile.question(job_of_image, "FROM os", Path("/in"), Path("/out"), {})["target"]
    assert {name: target["contexts"] for name, target in asked.items()} == {"ubuntu24_04-devel": {"os": "docker-image://ubuntu:24.04@sha256:0"}}

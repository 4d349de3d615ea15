"""The compatibility facts, and the rules that follow from them."""

from __future__ import annotations

import functools
import json

import pytest

from torchstrata.errors import MatrixError
from torchstrata.matrix import compat


def test_facts_have_a_date_and_sources():
    """Facts say when and from what they were established."""
    facts = compat.facts()
    assert facts.asof >= "2026-11-24"
    assert {"builds_published", "wheels", "drivers", "gcc"} <= set(facts.sources)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"asof": 1}', compat.FACTS.read_bytes().replace(b'"glibc"', b'"glibk"', 1)])
def test_facts_that_were_edited_into_something_else_are_one_line(content):
    """People add to them by hand."""
    with pytest.raises(MatrixError, match=r"compat\.json is not what it must be") as caught:
        compat.of(content)
    assert caught.value.what.isprintable()


def test_the_line_of_a_mistake_is_named():
    """As where a merge has left its marks."""
    lines = compat.FACTS.read_text().splitlines()
    with pytest.raises(MatrixError, match=r"in line 101\n"):
        compat.of("\n".join([*lines[:100], "<<<<<<< HEAD", *lines[100:]]).encode())


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("torch", "2.8", "builds", "cu128", "cuda"), "12.99", "torch 2.8 is built for CUDA 12.99, of which the facts know nothing"),
        (("torch", "2.8", "builds", "cu128", "cuda"), "twelve", "not what it must be"),
        (("torch", "2.8", "glibc"), "new", "not what it must be"),
        (("torch", "2.8", "version"), "../../2.8.0", "not what it must be"),
        (("torch", "2.8", "version"), "2.9.0", r"2\.9\.0 is no release of torch 2\.8"),
        (("torch", "2.8", "torchvision"), "0.23 0", "not what it must be"),
        (("torch", "2.8", "builds"), {}, "not what it must be"),
        (("torch", "2.8", "builds", "cu128", "architectures"), ["sm_75"], "not what it must be"),
        (("families", "12", "toolchain"), "12.99", r"the compiler of CUDA 12 is that of 12\.99, of which the facts know nothing"),
        (("families", "12"), None, "of whose major version the facts know nothing"),
        (("cuda", "12.8"), None, r"is built for CUDA 12\.8, of which the facts know nothing"),
        (("upstream", "indexes", "cu126"), None, "has a build for cu126, whose index the facts do not name"),
    ],
)
def test_facts_that_do_not_fit_together_are_one_line(place, value, says):
    """People add a CUDA and builds by hand, and forget a part or write it otherwise; ``None`` stands for a part that is not there."""
    facts = json.loads(compat.FACTS.read_text())
    *above, last = place
    section = functools.reduce(dict.__getitem__, above, facts)
    if value is None:
        del section[last]
    else:
        section[last] = value
    with pytest.raises(MatrixError, match=says):
        compat.of(json.dumps(facts).encode())


@pytest.mark.parametrize(
    ("variant", "says"), [("cu131", "or say `serves: cu131` beside cu130"), ("cu142", "use one of cu126, cu128, cu130, cpu"), ("cu118", "cu130, cpu")]
)
def test_what_serves_hosts_of_another_cuda_is_named(variant, says):
    """Builds of the same major do; where there is none, and for a CUDA that nobody knows, that is no cure."""
    with pytest.raises(MatrixError) as refused:
        compat.build("2.9", variant)
    assert refused.value.fix.endswith(says)


def test_facts_name_the_index_of_every_build_that_the_default_index_lacks():
    """Each has one of PyTorch's own, over TLS; no other address is in the facts."""
    facts = compat.facts()
    for minor, release in facts.torch.items():
        others = [name for name, build in release.builds.items() if not build.default]
        assert {compat.index(minor, name) for name in others} <= set(facts.upstream.indexes.values())
    assert all(url.startswith("https://") and url.endswith(f"/{name}") for name, url in facts.upstream.indexes.items())
    assert compat.FACTS.read_text().count("://") == len(facts.upstream.indexes)


@pytest.mark.parametrize(
    ("package", "version", "variant"),
    [
        ("torch", "2.8.0+cu126", "cu126"),
        ("torchvision", "0.23.0+cpu", "cpu"),
        ("torch", "2.8.0", None),
        ("numpy", "9+cu126", None),
        ("torch", "2.8.0+rocm", None),
    ],
)
def test_only_torch_and_its_family_come_from_upstreams_index(package, version, variant):
    """A local version names the index; other packages have none, whatever their version says."""
    assert compat.index_of(package, version) == (compat.facts().upstream.indexes[variant] if variant else None)


@pytest.mark.parametrize("minor", list(compat.facts().torch))
def test_facts_are_consistent(minor):
    """Every release has one default build and a CPU build, of CUDA releases that the facts know."""
    release = compat.torch(minor)
    assert [build.default for build in release.builds.values()].count(True) == 1
    assert release.version.startswith(f"{minor}.")
    for name, build in release.builds.items():
        assert build.cuda == compat.cuda_of(name)
        assert build.cuda is None or (build.cuda in compat.facts().cuda and build.architectures)
        assert build.cuda is None or compat.major(build.cuda) in compat.facts().families


@pytest.mark.parametrize(
    ("wheels", "asked", "served"),
    [
        ("cu128", "cu121", True),
        ("cu121", "cu129", True),
        ("cu132", "cu130", True),
        ("cu128", "cu118", False),
        ("cu130", "cu128", False),
        ("cpu", "cpu", True),
        ("cpu", "cu128", False),
        ("cu128", "cpu", False),
    ],
)
def test_minor_version_compatibility(wheels, asked, served):
    """Wheels serve hosts of their own CUDA major, and of no other."""
    assert compat.serves(wheels, asked) is served


@pytest.mark.parametrize(("variant", "version"), [("cu121", "12.1"), ("cu130", "13.0"), ("cu118", "11.8"), ("cpu", None)])
def test_cuda_of_a_variant(variant, version):
    """The name of a build gives its CUDA version."""
    assert compat.cuda_of(variant) == version


def test_cuda_12_compiler_is_a_toolchain():
    """No wheel has an nvcc of CUDA 12, so every CUDA 12 cell takes the 12.4 toolchain, which ends at sm_90 and g++ 13."""
    for minor, wheels in (("2.4", "cu121"), ("2.6", "cu124"), ("2.8", "cu128"), ("2.10", "cu128")):
        nvcc = compat.nvcc(minor, wheels)
        assert nvcc is not None
        assert (nvcc.toolchain, nvcc.requirements, nvcc.architectures[-1], nvcc.max_gcc) == ("cuda-12.4", (), "9.0", 13)


@pytest.mark.parametrize(
    ("minor", "wheels", "pin"), [("2.14", "cu130", "cuda-toolkit[nvcc,cccl]==13.0.3.0"), ("2.15", "cu132", "cuda-toolkit[nvcc,cccl,curand]==13.2.2")]
)
def test_cuda_13_compiler_is_pinned_as_torch_pins(minor, wheels, pin):
    """CUDA 13's nvcc comes as wheels of the release that torch itself pins, which covers all of torch's architectures."""
    facts = compat.cell_facts(minor, wheels, wheels)
    assert facts.nvcc is not None
    assert (facts.nvcc.toolchain, facts.nvcc.requirements, facts.missing_architectures) == (None, (pin,), ())
    assert pin.partition("==")[2].startswith(compat.torch(minor).cuda_toolkit)


def test_toolkit_of_torch_2_11_is_pinned_wheel_by_wheel():
    """The cuda-toolkit 13.0.2 package leaves the compiler's parts unpinned, which compiles nothing: so each is pinned."""
    nvcc = compat.nvcc("2.11", "cu130")
    assert nvcc is not None
    assert all("==13.0." in pin for pin in nvcc.requirements)
    assert {pin.partition("==")[0] for pin in nvcc.requirements} >= {"nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm", "nvidia-cuda-runtime"}


def test_cpu_needs_no_compiler():
    """CPU wheels come without nvcc, and any g++ serves."""
    assert compat.nvcc("2.13", "cpu") is None
    assert compat.host_compiler(("g++-14",), None) == "g++-14"


def test_unknown_compiler_is_refused():
    """A CUDA 13 torch whose compiler wheels nobody recorded is refused, with the fact that is missing."""
    with pytest.raises(MatrixError, match=r"no CUDA 13\.2 compiler is known for torch 2\.14"):
        compat.nvcc("2.14", "cu132")


def test_host_compiler_is_the_best_accepted():
    """Of an OS's compilers, best first, the first that nvcc accepts is taken; with none, the error says the limit."""
    nvcc = compat.nvcc("2.8", "cu128")
    assert compat.host_compiler(("g++-14", "g++-13", "g++-12"), nvcc) == "g++-13"
    with pytest.raises(MatrixError, match=r"nvcc 12\.4 accepts g\+\+ up to 13, and the OS has g\+\+-15, g\+\+-14"):
        compat.host_compiler(("g++-15", "g++-14"), nvcc)


@pytest.mark.parametrize(
    ("minor", "wheels", "torchaudio"),
    [
        ("2.4", "cu121", "2.4.1"),
        ("2.10", "cu128", "2.10.0"),
        ("2.14", "cu130", "2.11.0"),
        ("2.14", "cu126", None),
        ("2.15", "cu132", "2.11.1"),
        ("2.12", "cu130", None),
    ],
)
def test_torchaudio_only_where_it_was_seen_to_work(minor, wheels, torchaudio):
    """Torchaudio ended at 2.11: newer torch gets a build of that only in the build of its own with which its import and operators passed."""
    assert compat.companions(minor, wheels)["torchaudio"] == torchaudio


@pytest.mark.parametrize(("version", "floor", "enough"), [("2.41", "2.28", True), ("2.28", "2.28", True), ("2.9", "2.28", False), ("2.27", "2.28", False)])
def test_versions_are_compared_as_numbers(version, floor, enough):
    """Glibc 2.9 is older than 2.28."""
    assert compat.at_least(version, floor) is enough

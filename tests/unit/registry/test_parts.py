"""Parts in a registry: found, composed from JSON alone, fetched only where something reads them; and pushes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
import re
from itertools import chain
from types import SimpleNamespace

import pytest
from rich.console import Console

from tests.distribution import Distribution, digest_of
from tests.parts import CODEC, MATRIX, os_part, plan, stratum, wheels
from tests.waiting import PATIENCE
from torchstrata.attestations import remote as remotes
from torchstrata.attestations.remote import Remote, stem
from torchstrata.building.assembly import Builder
from torchstrata.building.plan import Bytecode, Item
from torchstrata.commands import build
from torchstrata.commands.options import BuildOptions
from torchstrata.errors import ImmutableTagError, IntegrityError, RegistryError, UntrustedError
from torchstrata.image.compose import canonical
from torchstrata.progress import PlainReporter
from torchstrata.registry.parts import PartRepository, unchecked
from torchstrata.registry.patience import Patience
from torchstrata.registry.push import Publication, Pusher
from torchstrata.registry.reference import Place
from torchstrata.registry.registry import Registry
from torchstrata.store.part import Part
from torchstrata.store.store import Store

QUICK = Patience(tries=2, first=0.01, longest=0.01, connect=PATIENCE, greeting=PATIENCE)
TAG = "x-20260101.1"


@pytest.fixture
def served():
    """Run a registry in memory."""
    with Distribution().serve() as running:
        yield running


def builder(store):
    """Return a builder without an engine."""
    return Builder(matrix=MATRIX, store=store, codec=CODEC, reporter=PlainReporter(Console(file=io.StringIO())))


def remote(served, store, **options):
    """Return the registry as a build has it."""
    return Remote.open(Place.parse(f"{served.host}/team"), "images", store, patience=QUICK, **{"verify": unchecked, **options})


@pytest.fixture
def full(tmp_path):
    """Return a store with an OS part, and the plan of the image of it."""
    store = Store(tmp_path / "full")
    item = os_part(store, {"etc/x": b"x" * 100_000})
    extra = store.add_blob(b"an extra")
    part = dataclasses.replace(item.part, extras={"aside": extra}, notes={"title": "noted"})
    store.remember(item.identity, part)
    return store, plan(dataclasses.replace(item, part=part))


@pytest.fixture
def pushed(served, full):
    """Push the image, and return it."""
    store, whole = full
    composed = builder(store).build(whole)
    remote(served, store).push(whole, [Publication(image=composed[0].image, tags=(TAG,))])
    return composed[0]


def lacking(whole):
    """Return the plan as an empty store has it."""
    return dataclasses.replace(
        whole, images=tuple(dataclasses.replace(image, items=tuple(dataclasses.replace(item, part=None) for item in image.items)) for image in whole.images)
    )


def test_an_empty_store_composes_the_same_image(served, full, pushed, tmp_path):
    """Parts are found with layers, extras and notes; no layer is read, and the image has the same bytes."""
    store = Store(tmp_path / "empty")
    found = remote(served, store).fill(lacking(full[1]), CODEC)
    assert found == full[1]
    assert builder(store).build(found)[0].image == pushed.image
    fetched = "\n".join(path for method, path, _ in served.seen if method == "GET" and "/parts/" in path)
    layers = chain.from_iterable(item.part.layers for item in full[1].items())
    assert not any(layer.digest in fetched for layer in layers)


def test_an_empty_store_pushes_what_is_there_without_a_layer(served, full, pushed, tmp_path):
    """Layers are mounted from the parts into another repository; only config and facts are sent."""
    store = Store(tmp_path / "empty")
    other = Remote.open(Place.parse(f"{served.host}/team"), "others", store, verify=unchecked, patience=QUICK)
    filled = other.fill(lacking(full[1]), CODEC)
    composed = builder(store).build(filled)
    report = other.push(filled, [Publication(image=composed[0].image, tags=(TAG,))])
    assert report.mounted == sum(layer.size for layer in filled.items()[0].part.layers)
    assert report.sent < 10_000
    assert report.parts == 0


def test_blobs_are_fetched_when_they_are_opened(served, full, pushed, tmp_path):
    """Once, verified; afterwards the store has the part itself."""
    store = Store(tmp_path / "empty")
    shared = remote(served, store)
    filled = shared.fill(lacking(full[1]), CODEC)
    (item,) = filled.items()
    assert store.find(item.identity) is None
    for digest in item.part.digests:
        assert shared.open_blob(digest).read_bytes() == full[0].open_blob(digest).read_bytes()
        shared.open_blob(digest)
    assert store.find(item.identity) == item.part
    (layer,) = item.part.layers
    assert len([path for method, path, _ in served.seen if method == "GET" and layer.digest in path]) == 1


def test_what_is_to_be_made_finds_what_it_is_made_from(served, full, pushed, tmp_path):
    """Bytecode reads whole parts; a group of wheels only what its CUDA strata left aside."""
    store, whole = Store(tmp_path / "empty"), full[1]
    (base,) = whole.items()
    missing = Item(
        identity="0" * 64, title="bytecode", source=Bytecode(sources=(), base=base.identity, system=base.source.system, interpreter="3.13.5"), part=None
    )
    both = dataclasses.replace(whole, images=(dataclasses.replace(whole.images[0], items=(*lacking(whole).items(), missing)),))
    remote(served, store).fill(both, CODEC)
    assert store.find(base.identity) == base.part


def test_a_group_of_wheels_does_not_fetch_gigabytes(served, tmp_path):
    """Of the CUDA strata below it only their extras come."""
    store = Store(tmp_path / "full")
    cuda = stratum(*wheels(tmp_path, "nvidia_thing").values())
    item = os_part(store, {"opt/cuda/lib/x.so": b"x" * 1000})
    part = Part(layers=item.part.layers, extras={"aside": store.add_blob(b"aside")})
    below = Item(identity=cuda.identity(CODEC), title="CUDA", source=cuda, part=part)
    store.remember(below.identity, part)
    remote(served, store).push(plan(below), [])
    group = dataclasses.replace(stratum(*wheels(tmp_path, "small").values()), needs=(cuda,))
    wanted = plan(dataclasses.replace(below, part=None), Item(identity=group.identity(CODEC), title="group", source=group, part=None))
    empty = Store(tmp_path / "empty")
    filled = remote(served, empty).fill(wanted, CODEC)
    assert [each.title for each in filled.missing()] == ["group"]
    assert empty.known(below.identity) == part
    assert empty.open_blob(part.extras["aside"]).read_bytes() == b"aside"
    assert empty.find(below.identity) is None


def test_what_is_not_as_locked_does_not_count_where_only_that_may_be_used(served, full, tmp_path):
    """``--locked`` refuses drifted OS parts, whoever has made them."""
    store, whole = full
    (item,) = whole.items()
    drifted = dataclasses.replace(item, part=dataclasses.replace(item.part, notes={"drift": "git 1 -> 2"}))
    store.remember(item.identity, drifted.part)
    remote(served, store).push(plan(drifted), [])
    shared = remote(served, Store(tmp_path / "empty"))
    assert [each.part for each in shared.fill(lacking(whole), CODEC).items()] == [drifted.part]
    assert len(shared.fill(lacking(whole), CODEC, locked=True).missing()) == 1


def test_who_verifies_decides(served, full, pushed, tmp_path):
    """It gets each part's manifest digest by identity, and nothing is kept of what it refuses."""
    seen = {}

    def refuse(found):
        seen.update(found)
        raise RegistryError("not signed", fix="sign it")

    store = Store(tmp_path / "empty")
    with pytest.raises(RegistryError, match="not signed"):
        remote(served, store, verify=refuse).fill(lacking(full[1]), CODEC)
    (item,) = full[1].items()
    assert {item.identity: served_digest(served, item.identity)} == seen
    assert store.known(item.identity) is None


UNTRUSTED = "nothing says whose count; set COSIGN_PUBLIC_KEY, or give --trust-unsealed-parts"
UNSEALED = "whoever may push .* decides what is in these images"


@pytest.mark.parametrize(("unsealed", "said"), [(False, UNTRUSTED), (True, UNSEALED)], ids=["refused", "asked for"])
@pytest.mark.usefixtures("pushed")
def test_parts_that_nobody_trusted_has_sealed_are_made_here(  # noqa: PLR0913, PLR0917  # fixtures
    served,
    full,
    tmp_path,
    monkeypatch,
    unsealed,
    said,
):
    """Whoever knows nobody to trust uses none and keeps nothing, but where that was asked for; one line says so."""
    monkeypatch.setattr(remotes.signing, "trusted", lambda: contextlib.nullcontext(None))
    store, output, planner = Store(tmp_path / "empty"), io.StringIO(), SimpleNamespace(codec=CODEC, locked=False)
    reporter, options = PlainReporter(Console(file=output, width=300)), BuildOptions(trust_unsealed_parts=unsealed)
    with Remote.opened(Place.parse(f"{served.host}/team"), "images", store, unsealed=unsealed) as shared:
        filled = build._filled(lacking(full[1]), shared, planner, reporter, options)
    assert filled == (full[1] if unsealed else lacking(full[1]))
    lines = output.getvalue().splitlines()
    assert len([line for line in lines if re.search(said, line)]) == 1
    assert unsealed or len(lines) == 1
    kept = [path for path in store.root.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert bool(kept) == unsealed


def test_a_push_finds_out_before_it_builds_that_nothing_answers(full, tmp_path):
    """Also where it looks for no parts, since nobody's count: else minutes pass before it says so."""
    shared = Remote.open(Place.parse("127.0.0.1:1/team"), "images", Store(tmp_path / "empty"), patience=QUICK)
    output, planner = io.StringIO(), SimpleNamespace(codec=CODEC, locked=False)
    with pytest.raises(RegistryError, match=r"127\.0\.0\.1:1 does not answer"):
        build._filled(lacking(full[1]), shared, planner, PlainReporter(Console(file=output)), BuildOptions(push=True))
    assert build._filled(lacking(full[1]), shared, planner, PlainReporter(Console(file=output)), BuildOptions()) == lacking(full[1])


@pytest.mark.usefixtures("pushed")
def test_a_shelf_believes_nobody_unless_it_is_told(served, full, tmp_path):
    """Whoever forgets to say whose parts count gets none."""
    (item,) = full[1].items()
    store = Store(tmp_path / "empty")
    with pytest.raises(UntrustedError, match="nothing says whose parts count"):
        PartRepository(registry=Registry(served.host), repository="team/parts", store=store).find([item.identity])
    assert store.known(item.identity) is None


def test_nothing_is_fetched_before_a_part_is_believed(served, full, pushed, tmp_path):
    """Seals before listings: of a part that is refused, neither its paths nor its layers are asked for."""

    def refuse(_):
        raise UntrustedError("no", fix="no")

    served.seen.clear()
    (item,) = full[1].items()
    wanted = {json.loads(served.manifests["team/parts", item.identity][0])["config"]["digest"]}
    with pytest.raises(UntrustedError):
        remote(served, Store(tmp_path / "empty"), verify=refuse).fill(lacking(full[1]), CODEC)
    assert {path.rpartition("/")[2] for _, path, _ in served.seen if "/blobs/" in path} == wanted


def served_digest(served, tag):
    """Return the digest that the registry has for a part's tag."""
    content = served.manifests["team/parts", tag][0]
    return next(name for (_, name), (body, _) in served.manifests.items() if body == content and name.startswith("sha256:"))


@pytest.mark.parametrize("harm", ["other identity", "no part", "no listings", "no layer"])
def test_a_part_that_is_none(served, full, pushed, tmp_path, harm):
    """What somebody else has pushed under an identity is not believed."""
    (item,) = full[1].items()
    content, media_type = served.manifests["team/parts", item.identity]
    document = json.loads(content)
    wanted = item.identity
    if harm == "other identity":
        wanted = "f" * 64
    elif harm == "no part":
        document["config"] = {"digest": document["layers"][-1]["digest"]}
    elif harm == "no listings":
        document["layers"] = document["layers"][:-1]
    else:
        document["layers"] = document["layers"][1:]
    served.manifests["team/parts", wanted] = (canonical(document), media_type)
    with pytest.raises(RegistryError, match=r"is not what it must be|is no part of this program|is another part"):
        remote(served, Store(tmp_path / "empty")).part_repository.find([wanted])


def test_tags_come_last(served, full):
    """Parts, blobs, manifests by digest, what is attached, and only then tags."""
    store, whole = full
    composed = builder(store).build(whole)
    attached = []
    remote(served, store).push(
        whole, [Publication(image=composed[0].image, tags=(TAG, "moving"))], attach=lambda *_: attached.append(len(served.seen)),
    )  # fmt: skip
    puts = [path for method, path, _ in served.seen if method == "PUT" and "/manifests/" in path]
    assert [path.rpartition("/")[2][:7] for path in puts[1:]] == ["sha256:", TAG[:7], "moving"]
    assert "/parts/" in puts[0]
    assert attached == [next(n for n, (method, path, _) in enumerate(served.seen) if method == "HEAD" and path.endswith(TAG) and n >= attached[0])]


def test_a_dated_tag_is_looked_at_before_anything_is_sent(served, full, pushed):
    """A push that cannot end well does not begin."""
    store, whole = full
    other = dataclasses.replace(pushed.image, manifest=pushed.image.manifest.replace(b'"schemaVersion":2', b'"annotations":{},"schemaVersion":2'))
    before = len(served.requests("POST"))
    with pytest.raises(ImmutableTagError):
        remote(served, store).push(whole, [Publication(image=other, tags=(TAG,))])
    assert len(served.requests("POST")) == before


def test_an_image_that_has_not_changed_keeps_its_dated_tag(served, full):
    """A night without changes makes no tags; a change makes the next one."""
    store, whole = full
    composed = builder(store).build(whole)
    shared = remote(served, store)
    first = shared.publications(composed)
    shared.push(whole, first)
    assert shared.publications(composed) == first
    changed = dataclasses.replace(composed[0], image=dataclasses.replace(composed[0].image, manifest=b"{}"))
    (next_one,) = shared.publications([changed])
    assert first[0].tags == (f"{stem(composed[0])}-{first[0].tags[0].rpartition('-')[2]}",)
    assert next_one.tags[0].rpartition(".")[2] == "2"


def test_the_first_failure_ends_a_push(served, full):
    """It is the one that is reported, and no tag has moved."""
    store, whole = full
    composed = builder(store).build(whole)
    shared = remote(served, store)
    broken = Pusher(registry=shared.registry, repository="team/images", open_blob=lambda *_: store.root / "none")
    with pytest.raises(FileNotFoundError):
        broken.push([Publication(image=composed[0].image, tags=(TAG,))])
    assert ("team/images", TAG) not in served.manifests


ELSEWHERE = ("sha256:../../../elsewhere", "/etc/passwd", "sha256:" + "a" * 64 + "\n", "sha512:" + "a" * 64, "sha256:" + "A" * 64, "", "../elsewhere")
"""What no digest is, and would be a path if it were believed."""


def replant(served, **changed):
    """Let the registry's part say something else, as who may push there can; its manifest names the new config."""
    key, (body, media_type) = next((key, found) for key, found in served.manifests.items() if b"vnd.torchstrata.part.v1" in found[0])
    document = json.loads(body)
    config = json.loads(served.blobs[key[0], document["config"]["digest"]])
    for name, value in changed.items():
        place = config["part"]["extras"] if name == "aside" else config["part"]["layers"][0]
        place[name] = value
    packed = json.dumps(config).encode()
    document["config"]["digest"] = digest_of(packed)
    document["layers"].append(document["layers"][0] | {"digest": next(iter(changed.values()))})
    served.blobs[key[0], document["config"]["digest"]] = packed
    changed_body = json.dumps(document).encode()
    for name in [name for name, (old, _) in served.manifests.items() if old == body]:
        served.manifests[name] = (changed_body, media_type)


@pytest.mark.usefixtures("pushed")
@pytest.mark.parametrize("name", ["diff_id", "digest", "aside"])
@pytest.mark.parametrize("path", ELSEWHERE)
def test_a_part_does_not_name_its_own_paths(served, full, tmp_path, name, path):
    """A digest that is none is refused before anything is kept, and nothing is asked for or written by that name."""
    replant(served, **{name: path})
    before = set(tmp_path.rglob("*"))
    with pytest.raises(RegistryError, match=r"is not what it must be|is no part of this program"):
        remote(served, Store(tmp_path / "empty")).fill(lacking(full[1]), CODEC)
    assert set(tmp_path.rglob("*")) == before
    assert not any("elsewhere" in asked or "passwd" in asked for _, asked, _ in served.seen)


@pytest.mark.parametrize("path", ELSEWHERE)
def test_a_store_opens_nothing_but_digests(tmp_path, path):
    """Whatever names a blob or a layer's paths, the store's files are all that it leads to."""
    store = Store(tmp_path / "store")
    for use in (store.open_blob, store.listing, store.has_listing, lambda name: store.keep_listing(name, ())):
        with pytest.raises(IntegrityError, match="is no digest"):
            use(path)
    assert not list(tmp_path.rglob("*elsewhere*"))


@pytest.mark.parametrize("path", ELSEWHERE)
def test_a_registry_is_asked_for_digests_and_tags_alone(served, path):
    """What a document names is no part of a URL unless it is a digest."""
    registry = Registry(served.host)
    for ask in (functools.partial(registry.blob, limit=10), registry.content, registry.has_blob, registry.referrers):
        with pytest.raises(IntegrityError, match="is no digest"):
            ask("team/images", path)
    for ask in (registry.manifest, registry.find, registry.remove):
        with pytest.raises(RegistryError, match="neither a tag nor a digest"):
            ask("team/images", path)
    assert served.seen == []

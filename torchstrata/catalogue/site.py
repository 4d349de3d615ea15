"""The site as files: pages of templates in each language, what they load, ``catalogue.json`` and the feed.

The templates escape every value (Jinja2, autoescape) and quote attributes. Links lead to our own pages only, and a
Content Security Policy lets nothing run but the site's one script. So text from a registry is only ever text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from torchstrata import progress
from torchstrata.catalogue import feed, grid, instructions, listing, machines, measurements, plots
from torchstrata.catalogue.exhibits import Catalogue, Exhibit, ShownLayer
from torchstrata.catalogue.strings import FOLDERS, LANGUAGES, Speaker
from torchstrata.release import difference

HERE: Final = Path(__file__).parent
ASSETS: Final = HERE / "assets"
NAME_DIGITS: Final = 24
"""Hexadecimal digits of a digest in the name of a page: nobody makes two images that share them."""

WHEELS: Final = 15
"""The largest ones, which are shown as bars."""

SECTIONS: Final = (
    ("use", "use.title"),
    ("facts", "facts.title"),
    ("tests", "tests.title"),
    ("signatures", "sign.title"),
    ("layers", "layers.title"),
    ("changes", "changes.title"),
    ("packages", "packages.title"),
    ("security", "security.title"),
    ("history", "history.title"),
)
KINDS: Final = ("cuda", "torch", "wheels", "bytecode", "os", "facts")


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerRow:
    """A layer in the table of an image.

    :param name: short; empty if nobody has said what it is.
    :param rest: what else its title says.
    :param width: percent of the largest layer.
    :param others: other images that have it.
    """

    name: str
    rest: str
    digest: str
    size: int
    kind: str
    width: float
    wheels: tuple[tuple[str, str, int], ...]
    others: tuple[Exhibit, ...]


def slug(image: Exhibit) -> str:
    """Return the name of the page of an image: cell, flavour, and as much of its digest as tells it from all others."""
    return f"{image.cell}-{image.image}-{image.digest.partition(':')[2][:NAME_DIGITS]}"


def cut(text: str, length: int) -> str:
    """Return a text, shortened where it is longer."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


class Site:
    """The site of a catalogue.

    :param address: where it will be, ending in a slash; empty if nobody knows.
    """

    def __init__(self, catalogue: Catalogue, address: str = "") -> None:
        self.catalogue = catalogue
        self.address = address
        self.slugs = {image.digest: slug(image) for image in catalogue.images}
        self.pages = {digest: f"images/{name}.html" for digest, name in self.slugs.items()}
        self._made: dict[str, dict[str, Any]] = {}
        self._cuda_titles = tuple(group.title for group in catalogue.matrix.strata.cuda_groups)
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self._templates.filters |= {"size": progress.size, "short": lambda digest: digest.partition(":")[2][:12], "cut": cut}

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yield path and content of every file."""
        for asset in sorted(ASSETS.iterdir()):
            yield f"assets/{asset.name}", asset.read_bytes()
        yield "catalogue.json", json.dumps(listing.document(self.catalogue, self.pages), indent=1, ensure_ascii=False).encode() + b"\n"
        yield "feed.atom", feed.render(self.catalogue, self.pages, self.address, Speaker(language=next(iter(LANGUAGES))))
        named = [{"slug": self.slugs[image.digest], "name": f"{image.cell}-{image.image} {image.day}".strip()} for image in self.catalogue.images]
        yield "data/images.js", listing.script("images", named).encode()
        for image in self.catalogue.images:
            yield f"data/{self.slugs[image.digest]}.js", listing.script(self.slugs[image.digest], self._data(image)).encode()
        for language in LANGUAGES:
            yield from self._in_language(language)

    def _data(self, image: Exhibit) -> dict[str, Any]:
        """Return the data of an image, made once for all languages: the launchers' files take most of a page's time."""
        if image.digest not in self._made:
            self._made[image.digest] = listing.data(self.catalogue, image)
        return self._made[image.digest]

    def _in_language(self, language: str) -> Iterator[tuple[str, bytes]]:
        say, folder = Speaker(language=language), FOLDERS[language]
        yield f"{folder}index.html", self.index(say)
        yield f"{folder}images.html", self._render("images.html", say, "images.html", {})
        yield f"{folder}trends.html", self._render("trends.html", say, "trends.html", self._trends())
        for image in self.catalogue.images:
            path = self.pages[image.digest]
            yield f"{folder}{path}", self._render("image.html", say, path, self._image(image))

    def _render(self, template: str, say: Speaker, path: str, values: Mapping[str, Any]) -> bytes:
        """Return a page.

        :param path: below the folder of its language.
        """
        folder = FOLDERS[say.language]
        root = "../" * f"{folder}{path}".count("/")
        here = "../" * path.count("/")
        shared = {
            "t": say,
            "language": say.language,
            "languages": LANGUAGES,
            "others": {other: f"{root}{FOLDERS[other]}{path}" for other in LANGUAGES if other != say.language},
            "root": root,
            "here": here,
            "page": template.partition(".")[0],
            "name": self.catalogue.matrix.name,
            "catalogue": self.catalogue,
            "made": f"{self.catalogue.made:%Y-%m-%d}",
            "source": self.catalogue.source,
            "image_count": len(self.catalogue.images),
            "cell_count": len({image.cell for image in self.catalogue.images}),
            "page_of": lambda image: f"{here}{self.pages[image.digest]}",
        }
        return self._templates.get_template(template).render(shared | dict(values)).encode()

    def index(self, say: Speaker) -> bytes:
        """Return the first page."""
        values = {
            "systems": grid.by_system(self.catalogue),
            "cudas": grid.by_cuda(self.catalogue.matrix),
            "gpus": machines.GPUS,
            "data": listing.picker(self.catalogue, self.pages, self.slugs, say),
        }
        return self._render("index.html", say, "index.html", values)

    def _trends(self) -> dict[str, Any]:
        singles = [releases[0] for releases in self.catalogue.series.values() if len(releases) == 1]
        return {
            "charts": plots.charts(self.catalogue),
            "singles": singles,
            "times": measurements.times(self.catalogue.measurements),
            "missing": measurements.missing(self.catalogue.measurements),
        }

    def _image(self, image: Exhibit) -> dict[str, Any]:
        releases = self.catalogue.releases(image)
        started = self._data(image)
        return {
            "image": image,
            "slug": self.slugs[image.digest],
            "sections": SECTIONS,
            "kinds": KINDS,
            "releases": releases,
            "channels": self._channels(image),
            "tag_name": instructions.name(self.catalogue, image) if image.tag else "",
            "pull": instructions.pull(self.catalogue, image),
            "run": started["run"],
            "launchers": started["files"],
            "facts": facts(image),
            "by_section": by_section(image),
            "checks": instructions.checks(self.catalogue, image),
            "documents": [(document.kind, instructions.fetch(self.catalogue, document)) for document in image.attached],
            **self._layers(image),
            **self._changes(image, releases),
            "packages": packages(image),
            "history": [entry for entry in self.catalogue.ledger.entries if not image.moved.isdisjoint(entry.images.values()) and entry.action != "check"],
            "looked": self._looked(image),
        }

    def _channels(self, image: Exhibit) -> list[str]:
        current = self.catalogue.ledger.state.current
        return sorted({channel for (channel, _), entry in current.items() if not image.moved.isdisjoint(entry.images.values())})

    def _looked(self, image: Exhibit) -> str:
        """Return the day on which somebody last looked after a channel that holds the image."""
        seen = self.catalogue.ledger.state.seen
        return max((f"{seen[channel]:%Y-%m-%d}" for channel in self._channels(image)), default="")

    def _layers(self, image: Exhibit) -> dict[str, Any]:
        largest = max((layer.size for layer in image.layers), default=0) or 1
        sizes = {(wheel.name, wheel.version): wheel.size for wheel in image.record.wheels} if image.record else {}
        rows = [self._row(image, layer, largest, sizes) for layer in image.layers]
        wheels = sorted(image.record.wheels, key=lambda wheel: -wheel.size)[:WHEELS] if image.record else []
        own = sum(row.size for row in rows if not row.others)
        return {"layers": rows, "strips": plots.strips(image, self._cuda_titles), "total": sum(row.size for row in rows), "own": own, "wheels": wheels}

    def _row(self, image: Exhibit, layer: ShownLayer, largest: int, sizes: Mapping[tuple[str, str], int]) -> LayerRow:
        name, _, rest = layer.title.partition(": ")
        command = rest.removeprefix("RUN ").removeprefix("/mnt/install ") if layer.origin == "os" else ""
        return LayerRow(
            name=cut(f"{name}: {command}" if command else name, 72),
            rest=rest,
            digest=layer.digest,
            size=layer.size,
            kind=plots.kind(layer, self._cuda_titles),
            width=100 * layer.size / largest,
            wheels=plots.wheels_of(layer, sizes),
            others=tuple(other for other in self.catalogue.holders[layer.digest] if other is not image),
        )

    def _changes(self, image: Exhibit, releases: tuple[Exhibit, ...]) -> dict[str, Any]:
        older = [other for other in releases if other.push < image.push]
        before, newest = next(iter(older), None), releases[0]
        since = difference.of(before.record, image.record) if before and before.record and image.record else None
        lacking = difference.of(image.record, newest.record) if image.record and newest.record and newest is not image else None
        fixes = [change for change in lacking.os if change.is_fix] if lacking else []
        return {"before": before, "difference": since, "fixes": fixes, "fix_sources": lacking.fixes if lacking else 0}


def facts(image: Exhibit) -> list[tuple[str, str]]:
    """Return key of the title and value of each fact about an image."""
    image_record, labels = image.record, image.labels
    torch = image_record.torch if image_record else None
    return [
        ("facts.torch", image.version),
        ("facts.cuda", image.wheels_cuda),
        ("facts.asked", labels.get("torchstrata.cuda.asked", "")),
        *((("facts.cudnn", torch.cudnn or ""), ("facts.nccl", torch.nccl or "")) if torch else ()),
        ("facts.nvcc", labels.get("torchstrata.nvcc", "")),
        ("facts.driver", image.driver_floor),
        ("facts.gpus", " ".join(f"sm_{name.replace('.', '')}" for name in image.architectures)),
        ("facts.python", labels.get("torchstrata.python", "")),
        ("facts.os", f"{image_record.os.id} ({image_record.os.suite})" if image_record else image.os),
        ("facts.platform", image.platform),
        ("facts.user", image.user),
        *(
            (("facts.size", progress.size(image_record.size)), ("facts.unpacked", progress.size(image_record.unpacked)))
            if image_record
            else (("facts.size" if any(layer.size for layer in image.layers) else "facts.size_engine", progress.size(image.size)),)
        ),
        ("facts.commit", labels.get("org.opencontainers.image.revision", "")[:12]),
        ("facts.released", image.day),
        *((("facts.os_lock", image_record.inputs.os_lock_date), ("facts.wheels_lock", image_record.inputs.lock_seen[:10])) if image_record else ()),
    ]


def by_section(image: Exhibit) -> list[tuple[str, tuple[int, int]]]:
    """Return how many tests passed and did not, by section of the tests."""
    tests = image.evidence.tests if image.evidence else ()
    passed, other = Counter(test.section for test in tests if test.outcome == "passed"), Counter(test.section for test in tests if test.outcome != "passed")
    return [(section, (passed[section], other[section])) for section in sorted({*passed, *other})]


def packages(image: Exhibit) -> list[tuple[str, Any]]:
    """Return key of the title and the packages of each kind."""
    if image.record is None:
        return []
    tools = image.record.inputs.toolchain.packages if image.record.inputs.toolchain else ()
    return [("packages.python", image.record.wheels), ("packages.os", image.record.packages), ("packages.tools", tools)]

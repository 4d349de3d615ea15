"""What guides, comments and docstrings name is there: files, sessions, verbs, tests, and what docstrings refer to."""

from __future__ import annotations

import ast
import builtins
import functools
import io
import itertools
import posixpath
import re
import subprocess
import tokenize
from collections.abc import Iterator

import msgspec
import pytest

import tasks
from torchstrata.matrix import matrix, schema
from torchstrata.matrix.matrix import ROOT

GUIDES = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))

BASES = (
    "",
    "docs",
    "torchstrata",
    "tests",
    "tests/images",
    "tests/unit",
    "images/base/rootfs",
    "images/base/rootfs/usr/local/lib/torchstrata",
    "images/jupyter/rootfs",
    "images/jupyter/rootfs/usr/local/lib/torchstrata",
    "images/ssh/rootfs/usr/local/lib/torchstrata",
    "images/jupyter/rootfs/usr/local/share/torchstrata",
)
"""Where a path that a text names may begin."""

PATH = re.compile(r"(?<![\w/.~$<>*{}@:-])((?:[\w.-]+/)+[\w.-]+\.(?:py|md|toml|json|ya?ml|lock|in|svg))(?:::(\w+))?(?![\w/*<{-])")
SESSION, VERB = re.compile(r"\bnox -s ([^\s`]+)"), re.compile(r"`inv ([^\s`]+)")
NAME = re.compile(r"[a-z0-9][a-z0-9.-]*[a-z0-9]")
EXAMPLES = {"build-2.9-cu128", "test-2.9-cu128"}
IMAGINED = re.compile(r"2\.9\.1-cu128|gym|debian14|cp314")
"""Sessions, and words in paths, of the torch, the flavour and the OS that docs/adding.md adds to show how."""
MADE = {"bench/results/reliability.json", "locks/os/ubuntu24.04.lock"}
"""What a session or a verb writes once somebody asks for it."""

ROLE = re.compile(r":(?:func|class|data|meth|mod|attr|exc):`~?([\w.]+)`")


@functools.cache
def known() -> frozenset[str]:
    """Return the names of all files that git knows, and of those that are about to be added."""
    words = ("git", "ls-files", "--cached", "--others", "--exclude-standard")
    return frozenset(subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines())


SOURCES = sorted(name for name in known() if name.endswith(".py") and (ROOT / name).is_file())


@functools.cache
def read(name: str) -> str:
    """Return the text of a file."""
    return (ROOT / name).read_text(encoding="utf-8")


def mentioning(*words: str) -> list[str]:
    """Return the sources in whose text all of some words are: parsing them all takes seconds."""
    return [name for name in SOURCES if all(word in read(name) for word in words)]


def prose(name: str) -> str:
    """Return the comments and docstrings of a module."""
    text = read(name)
    comments = [token.string for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type == tokenize.COMMENT]
    return "\n".join([*comments, *docstrings(ast.parse(text))])


def docstrings(tree: ast.AST) -> Iterator[str]:
    """Yield the strings that stand for themselves: docstrings, also those of values."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


def is_there(path: str, test: str) -> bool:
    """Return whether a path names a file, by whichever of the usual beginnings, that has ``test`` if one is named.

    Of tests of images their flavour is enough: ``base/test_users.py``.
    """
    places = [*(f"{base}/{path}" for base in BASES), f"images/{path.replace('/', '/tests/', 1)}"]
    files = [ROOT / place for named in places if (place := posixpath.normpath(named).lstrip("/")) in known()]
    return any(not test or re.search(rf"def {test}\b", file.read_text(encoding="utf-8")) for file in files)


def is_ours(path: str) -> bool:
    """Return whether a path begins with a folder of the repository and holds no placeholder, as ``NAME.lock`` is one."""
    first = path.split("/", 1)[0]
    return first in FOLDERS and not re.search(r"\b[A-Z]{2,}\b(?!\.md)", path)


def tops(base: str) -> set[str]:
    """Return the names of what lies in a folder of the repository, in the repository itself if it is empty."""
    beginning = f"{base}/" if base else ""
    return {name.removeprefix(beginning).split("/")[0] for name in known() if name.startswith(beginning)}


FOLDERS = {"..", *itertools.chain.from_iterable(map(tops, BASES))}


def strangers(text: str) -> list[str]:
    """Return the paths of the repository that ``text`` names and that are not there."""
    named = [(path, test) for path, test in PATH.findall(text) if is_ours(path) and path not in MADE and not IMAGINED.search(path)]
    return [f"{path}::{test}" for path, test in named if not is_there(path, test)]


def lost(name: str) -> list[str]:
    """Return the paths that a guide, or a module's comments and docstrings, name and that are not there."""
    text = read(name)
    if name in GUIDES or not strangers(text):
        return strangers(text)
    return strangers(prose(name))  # the code itself may name what is nowhere; telling it apart takes ten times as long


def test_paths_lead_somewhere():
    """A file that is named is there, with the test that is named."""
    assert {name: paths for name in [*GUIDES, *SOURCES] if (paths := lost(name))} == {}


def own_sessions() -> set[str]:
    """Return the names of the sessions of noxfile.py that are of no cell."""
    tree = ast.parse(read("noxfile.py"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and "nox.session" in "".join(map(ast.unparse, node.decorator_list))]
    own = {re.search(r"name='([\w-]+)'", ast.unparse(node.decorator_list[0])) or node.name for node in functions}
    return {name if isinstance(name, str) else name[1] for name in own}


def sessions() -> set[str]:
    """Return the names of the sessions of noxfile.py, and of those of all cells."""
    cells = itertools.chain.from_iterable(cell.names for cell in matrix.load().cells)
    return own_sessions() | {f"{verb}-{name}" for verb, name in itertools.product(("build", "test"), cells)}


def test_contributing_names_every_session():
    """But the one that tiers end with."""
    text = read("CONTRIBUTING.md")
    assert {name for name in own_sessions() if not re.search(rf"`(?:nox -s )?{name}[ `]", text)} == {"cpu-time"}


def test_every_verb_is_in_a_guide():
    """People learn there what it is for."""
    text = "".join(read(name) for name in GUIDES)
    assert {name for name in tasks.namespace.task_names if not re.search(rf"\binv {re.escape(name)}\b", text)} == set()


def test_fixtures_of_image_tests_are_listed():
    """Whoever writes a test of images finds each of plugin.py in the guide."""
    tree, text = ast.parse(read("tests/images/plugin.py")), read("docs/verifying.md")
    fixtures = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and "pytest.fixture" in "".join(map(ast.unparse, node.decorator_list))}
    assert {name for name in fixtures if f"`{name}`" not in text} == set()


@pytest.mark.parametrize("shape", [schema.SystemSettings, schema.FlavourFile, schema.ServiceSettings])
def test_keys_that_people_write_are_described(shape):
    """Whoever adds an OS, a flavour or a service finds each key in the guide to it."""
    text = read("docs/adding.md")
    assert [field.encode_name for field in msgspec.structs.fields(shape) if not re.search(rf"`{field.encode_name}[`:]", text)] == []


@pytest.mark.parametrize("name", GUIDES)
def test_members_of_classes_are_there(name):
    """A method or field that a guide names, such as ``Store.leave``, is one of the class of that name."""
    members = re.findall(r"`([A-Z]\w*[a-z]\w*\.\w+)`", read(name))
    ours = [member for member in members if is_class(member.partition(".")[0])]
    assert [member for member in ours if not any(member in defined(source) for source in mentioning(*member.split(".")))] == []


def is_class(name: str) -> bool:
    """Return whether some module of ours defines a name."""
    return any(name in defined(source) for source in mentioning(name))


@pytest.mark.parametrize("name", GUIDES)
def test_commands_can_be_typed(name):
    """Sessions are those of noxfile.py or of cells, verbs those of tasks.py."""
    text = read(name)
    assert names(SESSION, text) - sessions() - EXAMPLES == set()
    assert names(VERB, text) - set(tasks.namespace.task_names) == set()


def names(pattern: re.Pattern[str], text: str) -> set[str]:
    """Return the words that a pattern finds, without placeholders such as ``build-CELL``."""
    return {word for word in pattern.findall(text) if NAME.fullmatch(word)}


@functools.cache
def defined(name: str) -> frozenset[str]:
    """Return what a module defines, attributes of classes as ``Class.attribute``, and what it imports."""
    return frozenset(_defined(ast.parse(read(name)).body, ""))


def _defined(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from _defined(node.body, f"{prefix}{node.name}.")
            yield from (f"{prefix}{node.name}.{part.attr}" for part in ast.walk(node) if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store))
        if isinstance(node, ast.Assign | ast.AnnAssign):
            yield from (prefix + part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store))
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        if isinstance(node, ast.If | ast.Try):
            yield from _defined(node.body, prefix)


def resolves(word: str, name: str) -> bool:
    """Return whether what a docstring of a module refers to is defined in it, in a module of ours that it names, or is somebody else's."""
    if word in defined(name) or any(one.endswith(f".{word}") for one in defined(name)):
        return True
    first, _, rest = word.partition(".")
    if not rest:
        return hasattr(builtins, word)
    if word.startswith(("torchstrata.", "tests.")):
        return is_dotted(word)
    ours = [source for source in SOURCES if posixpath.basename(source) == f"{first}.py"]
    return any(rest in defined(source) for source in ours) or ((not ours and not first.islower()) or first in defined(name) or first in FOREIGN)


FOREIGN = {"docker", "requests", "subprocess", "ssl", "pathlib", "zipfile", "tarfile", "json", "msgspec", "pytest", "nox", "invoke"}
"""Packages of others to which docstrings refer without an import."""


def is_dotted(word: str) -> bool:
    """Return whether a dotted path names a folder, a module or something that a module defines."""
    parts = word.split(".")
    if f"{'/'.join(parts)}/__init__.py" in known():
        return True
    splits = [("/".join(parts[:end]) + ".py", ".".join(parts[end:])) for end in range(1, len(parts) + 1)]
    return any(file in known() and (not rest or rest in defined(file)) for file, rest in splits)


def dangling(name: str) -> list[str]:
    """Return what docstrings of a module refer to and is not defined where they say."""
    words = itertools.chain.from_iterable(map(ROLE.findall, docstrings(ast.parse(read(name)))))
    return [word for word in words if not resolves(word, name)]


def test_docstrings_refer_to_what_is_there():
    """A function, class or value that a docstring refers to is defined where it says."""
    referring = [name for name in SOURCES if ROLE.search(read(name))]
    assert {name: words for name in referring if (words := dangling(name))} == {}

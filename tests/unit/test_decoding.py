"""Types are prepared by one thread at a time: else the process dies of signal 11."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from torchstrata.matrix.matrix import ROOT

RACE = """
import faulthandler, itertools, sys, threading
from dataclasses import make_dataclass
import msgspec
from torchstrata import decoding

faulthandler.enable()
sys.setswitchinterval(1e-6)
KINDS = {
    "struct": lambda name, fields: msgspec.defstruct(name, fields, frozen=True),
    "dataclass": lambda name, fields: make_dataclass(name, fields, frozen=True),
}
WAYS = {
    "decode": lambda kind: decoding.decode(b'{"many": [{"text": "x", "number": 1}], "one": {"text": "y", "number": 2}}', kind),
    "convert": lambda kind: decoding.convert({"many": [{"text": "x", "number": 1}], "one": {"text": "y", "number": 2}}, kind),
}
make, way = KINDS[sys.argv[1]], WAYS[sys.argv[2]]

def thread():
    together.wait()
    seen.append(way(outer))

for number in range(200):
    inner = make(f"Inner{number}", [("text", str), ("number", int)])
    outer = make(f"Outer{number}", [("many", tuple[inner, ...]), ("one", inner)])
    together, seen = threading.Barrier(4), []
    threads = [threading.Thread(target=thread) for _ in range(4)]
    [each.start() for each in threads]
    [each.join() for each in threads]
    assert seen == [outer(many=(inner("x", 1),), one=inner("y", 2))] * 4, seen
"""
"""Decodes to types that nobody has decoded to, in four threads that begin together and take turns as often as they can."""


@pytest.mark.parametrize("kind", ["struct", "dataclass"])
@pytest.mark.parametrize("way", ["decode", "convert"])
def test_threads_may_decode_to_a_new_type_at_the_same_time(kind, way):
    """All of them get their value, and the process lives."""
    ended = subprocess.run([sys.executable, "-c", RACE, kind, way], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def hands_over_a_type(node: ast.AST) -> bool:
    """Return whether a piece of code calls msgspec with a type, or imports a name from it, by which that could not be seen."""
    if isinstance(node, ast.ImportFrom):
        return str(node.module).partition(".")[0] == "msgspec"
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not (called := ast.unparse(node.func)).startswith("msgspec."):
        return False
    typed = len(node.args) > 1 or any(word.arg == "type" for word in node.keywords)
    return called.endswith(("convert", "Decoder")) or (typed and called.endswith("decode"))


def test_one_module_hands_types_to_msgspec():
    """So that no other can do it without the lock."""
    texts = {path.name: text for path in (ROOT / "torchstrata").rglob("*.py") if "msgspec" in (text := path.read_text())}
    assert [name for name, text in texts.items() if any(map(hands_over_a_type, ast.walk(ast.parse(text))))] == ["decoding.py"]

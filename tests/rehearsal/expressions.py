"""The few forms of GitHub's expressions that our workflows use; every other one is refused, not guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

HOLE = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
TOKEN = re.compile(r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<word>[A-Za-z_][\w-]*(?:\.[A-Za-z_][\w-]*)*)|(?P<sign>==|!=|&&|\|\||[!(),]))")

LENIENT = frozenset({"github", "vars", "secrets", "env"})
"""Contexts in which something may be missing and is empty then, as at GitHub; in the others that would be a mistake in the workflow."""


class Refused(Exception):
    """A workflow uses something that the rehearsal does not know."""


@dataclass
class Scope:
    """What expressions may see.

    :param contexts: values by context.
    :param status: of what ran before: ``success`` or ``failure``.
    """

    contexts: Mapping[str, Mapping[str, Any]]
    status: str = "success"
    asked_status: bool = field(default=False, init=False)

    def fill(self, template: str) -> str:
        """Return a text with its expressions replaced."""
        return HOLE.sub(lambda hole: _text(self.value(hole[1])), template)

    def whole(self, template: str) -> Any:
        """Return the value of a text that is one expression, whatever it is; else the text."""
        hole = HOLE.fullmatch(template.strip())
        return self.value(hole[1]) if hole else template

    def holds(self, condition: str | None) -> bool:
        """Return whether an ``if:`` lets something run; without a function on the status, all before must have succeeded."""
        self.asked_status = False
        text = (condition or "success()").strip()
        hole = HOLE.fullmatch(text)
        found = truth(self.value(hole[1] if hole else text))
        return found and (self.asked_status or self.status == "success")

    def value(self, expression: str) -> Any:
        """Return the value of an expression.

        :raises Refused: it has a form that is not known here.
        """
        parser = _Parser(list(_tokens(expression)), self, expression)
        found = parser.either()
        parser.end()
        return found

    def look(self, path: str) -> Any:
        """Return what a path such as ``needs.plan.outputs.cells`` leads to."""
        context, *names = path.split(".")
        if context not in self.contexts or not names:
            raise Refused(f"the rehearsal does not know {path}")
        found: Any = self.contexts[context]
        for name in names:
            if not isinstance(found, Mapping) or name not in found:
                if context in LENIENT:
                    return None
                raise Refused(f"nothing is at {path}: {name} is missing")
            found = found[name]
        return found

    def call(self, name: str, arguments: list[Any]) -> Any:
        """Return what a function gives."""
        if name == "fromJSON" and len(arguments) == 1:
            return json.loads(_text(arguments[0]))
        if name in {"success", "failure", "always", "cancelled"} and not arguments:
            self.asked_status = True
            return {"success": self.status == "success", "failure": self.status == "failure", "always": True, "cancelled": False}[name]
        raise Refused(f"the rehearsal does not know {name}() with {len(arguments)} arguments")


@dataclass
class _Parser:
    """Reads an expression from left to right, and evaluates it meanwhile."""

    tokens: list[tuple[str, str]]
    scope: Scope
    source: str

    def either(self) -> Any:
        found = self.both()
        while self.takes("||"):
            other = self.both()
            found = found if truth(found) else other
        return found

    def both(self) -> Any:
        found = self.equal()
        while self.takes("&&"):
            other = self.equal()
            found = other if truth(found) else found
        return found

    def equal(self) -> Any:
        found = self.negated()
        for sign in ("==", "!="):
            if self.takes(sign):
                return _same(found, self.negated()) == (sign == "==")
        return found

    def negated(self) -> Any:
        return not truth(self.negated()) if self.takes("!") else self.single()

    def single(self) -> Any:
        if self.takes("("):
            found = self.either()
            self.needs(")")
            return found
        kind, text = self.tokens.pop(0) if self.tokens else ("end", "")
        if kind == "text":
            return text[1:-1].replace("''", "'")
        if kind == "word":
            return self.named(text)
        raise self.refusal()

    def named(self, text: str) -> Any:
        if text in {"true", "false", "null"}:
            return {"true": True, "false": False, "null": None}[text]
        if not self.takes("("):
            return self.scope.look(text)
        arguments: list[Any] = []
        while not self.takes(")"):
            arguments.append(self.either())
            self.takes(",")
        return self.scope.call(text, arguments)

    def takes(self, sign: str) -> bool:
        if self.tokens and self.tokens[0] == ("sign", sign):
            self.tokens.pop(0)
            return True
        return False

    def needs(self, sign: str) -> None:
        if not self.takes(sign):
            raise self.refusal()

    def end(self) -> None:
        if self.tokens:
            raise self.refusal()

    def refusal(self) -> Refused:
        return Refused(f"the rehearsal does not understand {self.source.strip()!r}")


def _tokens(expression: str) -> Iterator[tuple[str, str]]:
    place, text = 0, expression.rstrip()
    while place < len(text):
        found = TOKEN.match(text, place)
        if not found or found.lastgroup is None:
            raise Refused(f"the rehearsal does not understand {text[place:].strip()!r} in {expression.strip()!r}")
        yield found.lastgroup, found[found.lastgroup]
        place = found.end()


def truth(value: Any) -> bool:
    """Return whether GitHub takes a value for true."""
    return value not in (None, "", False, 0)


def _same(left: Any, right: Any) -> bool:
    """Compare as GitHub does where both are of one kind; case does not count."""
    left, right = ("" if each is None else each for each in (left, right))
    if type(left) is not type(right):
        raise Refused(f"the rehearsal does not compare {left!r} with {right!r}")
    return left.casefold() == right.casefold() if isinstance(left, str) else bool(left == right)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int):
        return str(value)
    raise Refused(f"the rehearsal does not write {value!r} into a text")

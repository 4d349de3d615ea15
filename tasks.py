"""Verbs for people: ``inv plan``, ``inv push``, ``inv lock``, ``inv cache``. Sessions over the matrix are in noxfile.py."""

from __future__ import annotations

from invoke.main import program

from torchstrata.commands import cli, inv

cli.answer_interrupts()
inv.answer(program)
namespace = inv.collection()

"""The ledger on a branch of a git repository. A push that is not a fast-forward loses: that is the compare-and-swap.

Commits are made from objects alone: the checkout's files, index and branches are never touched. The branch may be
read and checked without this tool; a README on it says how.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from torchstrata import process
from torchstrata.errors import CommandError, LedgerConflictError, LedgerError, VariableError
from torchstrata.host import home, variables
from torchstrata.release import ledger_remote
from torchstrata.release.ledger import FILE, LIMIT, Author, Ledger
from torchstrata.text import printable

REMOTE: Final = "origin"
BRANCH: Final = "ledger"

QUIET: Final = ("-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0", "-c", "maintenance.auto=false")
"""Nobody's hooks run for a branch that is not theirs, and no housekeeping starts."""

PATIENT: Final = ("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=60")
"""A server over HTTP that sends less than 1,000 bytes a second for a minute is given up (git-config(1))."""

DEADLINE: Final = 600.0
"""Seconds that one call of git may take: most transports have no limit, and a ledger has 64 MB at most."""

ENVIRONMENT: Final = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": ":".join(ledger_remote.PROTOCOLS)}

README: Final = """\
# Ledger of the images

`ledger.jsonl` has one line of JSON for each move of a channel, oldest first. Nothing is ever changed or removed; this branch
takes fast-forwards only. It is written by `inv release.promote`, `inv release.rollback` and `inv nightly`.

| key | holds |
|---|---|
| `sequence`, `time` | number of the line, from 1; UTC |
| `action` | `publish` (new images), `promote` (from another channel), `rollback`, `check` (looked after, nothing moved) |
| `channel`, `cell` | what moved; `*` stands for all cells |
| `images` | digest of each image of the cell; all move together |
| `tags` | each tag that moved, with its old and its new digest |
| `inputs` | digests of what new images were made from |
| `who`, `run`, `why` | person or machine, address of the run, reason |
| `previous` | SHA-256 of the line before, without its line end |

What a tag points to is the last line that names it:

    jq -r 'select(.tags["v2.8"]) | .tags["v2.8"][1]' ledger.jsonl | tail -1

Whether nobody has changed a line:

    while IFS= read -r line; do
        [ "$(printf %s "$line" | jq -r .previous)" = "$before" ] || echo "broken before: $line"
        before=$(printf %s "$line" | sha256sum | cut -c1-64)
    done < ledger.jsonl

The registry holds a signed copy beside the images, under the tag `ledger`.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """The branch as it was read.

    :param commit: ``None`` if there is no such branch yet.
    """

    commit: str | None
    ledger: Ledger


@dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """Where the ledger is kept.

    :param root: a git repository, which holds the objects meanwhile, and knows the remote and how to log in there.
    :param remote: name, path or address.
    """

    root: Path
    remote: str = REMOTE
    name: str = BRANCH

    @classmethod
    def parse(cls, text: str | None, root: Path) -> Self:
        """Return the branch that ``REMOTE#branch`` names; either part may be left out.

        :raises LedgerError: it names no repository, or no branch.
        """
        remote, _, name = (text or "").partition("#")
        branch = cls(root=root, remote=ledger_remote.checked(remote or REMOTE), name=name or BRANCH)
        try:
            process.run("git", "check-ref-format", branch.ref)
        except process.Failed as error:
            raise LedgerError(f"{printable(name, 80)!r} is no name of a branch", fix="write REMOTE#branch, such as origin#ledger") from error
        return branch

    def __str__(self) -> str:
        return f"{self.remote}#{self.name}"

    @property
    def ref(self) -> str:
        """The branch's full name at the remote."""
        return f"refs/heads/{self.name}"

    def read(self) -> Snapshot:
        """Return the ledger as it is now, an empty one if there is no branch yet.

        :raises LedgerError: the remote does not answer, or the ledger was tampered with.
        """
        commit = self._head()
        if commit is None:
            return Snapshot(commit=None, ledger=Ledger())
        self._git("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--refmap=", "--", self.remote, self.ref)
        return Snapshot(commit=commit, ledger=Ledger.parse(self._content(f"{commit}:{FILE}")))

    def _content(self, name: str) -> bytes:
        """Return an object that was fetched, unless it is larger than any ledger."""
        size = int(self._git("cat-file", "-s", name))
        if size > LIMIT:
            raise LedgerError(f"the ledger {self} has {size} bytes, more than {LIMIT}", fix="find out who has written it: this program did not")
        return self._git("cat-file", "blob", name).encode()

    def push(self, base: Snapshot, ledger: Ledger, subject: str, author: Author) -> Snapshot:
        """Make ``ledger`` the branch's, if the branch is still what ``base`` says.

        :param subject: first line of the commit's message.
        :raises LedgerConflictError: somebody else was faster; nothing was changed.
        :raises LedgerError: the remote refuses it.
        """
        commit = self._commit(base, ledger, subject, author)
        try:
            self._git("push", "--quiet", "--", self.remote, f"{commit}:{self.ref}")
        except LedgerError:
            now = self._head()
            if now not in {base.commit, commit}:
                raise conflict(self) from None
            if now != commit:  # else only the answer was lost
                raise
        return Snapshot(commit=commit, ledger=ledger)

    def _head(self) -> str | None:
        """Return the branch's commit; git also lists refs that only end alike: ``refs/heads/x/refs/heads/ledger``."""
        listed = (line.partition("\t") for line in self._git("ls-remote", "--", self.remote, self.ref).splitlines())
        return next((commit for commit, _, name in listed if name == self.ref), None)

    def _commit(self, base: Snapshot, ledger: Ledger, subject: str, author: Author) -> str:
        """Make the commit after ``base`` and return its id; no ref names it."""
        files = {FILE: ledger.content, "README.md": README.encode()}
        tree = "".join(f"100644 blob {self._git('hash-object', '-w', '--stdin', stdin=content).strip()}\t{name}\n" for name, content in files.items())
        made = self._git("mktree", stdin=tree.encode()).strip()
        parents = ("-p", base.commit) if base.commit else ()
        identity = {
            "GIT_AUTHOR_NAME": author.name,
            "GIT_AUTHOR_EMAIL": author.email,
            "GIT_COMMITTER_NAME": author.name,
            "GIT_COMMITTER_EMAIL": author.email,
        }
        return self._git("commit-tree", "--no-gpg-sign", *parents, made, stdin=subject.encode(), env=identity).strip()

    def _git(self, *words: str, stdin: bytes | None = None, env: Mapping[str, str] | None = None) -> str:
        try:
            return process.run("git", "-C", self.root, *QUIET, *PATIENT, *words, stdin=stdin, env={**ENVIRONMENT, **(env or {})}, seconds=DEADLINE)
        except process.Failed as error:
            messages = [line for line in error.tail.splitlines() if line.startswith(("fatal:", "error:", " !"))] or [error.what]
            raise LedgerError(
                f"the ledger {self} cannot be {'written' if words[0] == 'push' else 'read'}: {printable(messages[0].strip())}",
                fix="check the remote and your rights to it, or name another place with --ledger REMOTE#branch",
            ) from error


def conflict(branch: Branch) -> LedgerConflictError:
    """Return the error of the writer who came second."""
    return LedgerConflictError(
        f"somebody else wrote to the ledger at the same moment: {branch} is not where it was", fix="nothing has moved: look again, then run it again"
    )


def author(root: Path) -> Author:
    """Return who runs this: in GitHub Actions its actor and run, else git's user, else the account."""
    if os.environ.get("GITHUB_ACTIONS") == "true":
        actor, server, repository, run = map(_given, ("GITHUB_ACTOR", "GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID"))
        return Author(name=actor, email=f"{actor}@users.noreply.github.com", run=f"{server}/{repository}/actions/runs/{run}")
    name, email = _setting(root, "user.name"), _setting(root, "user.email")
    return Author(name=name or home.login(), email=email)


def _given(name: str) -> str:
    """Return a variable that GitHub Actions sets in every job.

    :raises VariableError: it is not there, or is no text.
    """
    value = variables.text(name)
    if value is None:
        raise VariableError(f"GITHUB_ACTIONS is true, and {name} is not set", fix=f"unset GITHUB_ACTIONS, or set {name}")
    return value


def _setting(root: Path, key: str) -> str:
    try:
        return process.run("git", "-C", root, "config", "--get", "--default", "", key).strip()
    except CommandError:
        return ""

"""What stands in here for the actions of others that workflows use; every other one is refused.

| action | here |
|---|---|
| ``actions/checkout`` | a clone, as deep as asked, of what the rehearsal's own remote has at ``ref``; it can push if the job may |
| ``actions/setup-python`` | an empty environment of the Python at hand, whatever version was asked for |
| ``sigstore/cosign-installer`` | Debian's cosign |
| ``docker/login-action`` | ``docker login`` |
| ``actions/upload-artifact`` | a directory |
| ``actions/upload-pages-artifact`` | a directory, which must have a first page |
| ``actions/deploy-pages`` | nothing, but there must be a site |
| ``peter-evans/create-pull-request`` | a commit on the branch, pushed to the rehearsal's own remote |
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import programs
from tests.rehearsal.expressions import Refused, Scope

BRANCH = "main"
NO_CREDENTIALS = "no-credentials:"
"""Where a checkout pushes to that must not."""

SITE = "github-pages"
"""What GitHub calls a site that was uploaded."""

BOT = {"GIT_AUTHOR_NAME": "bot", "GIT_AUTHOR_EMAIL": "bot@example.org", "GIT_COMMITTER_NAME": "bot", "GIT_COMMITTER_EMAIL": "bot@example.org"}


@dataclass
class Job:
    """One job under way.

    :param environment: all variables of its steps.
    :param scope: what its expressions see.
    :param path: directories that its steps have put before the others of ``PATH``.
    """

    name: str
    workspace: Path
    home: Path
    origin: Path
    artifacts: Path
    environment: Mapping[str, str]
    scope: Scope
    steps: dict[str, Any]
    may_push: bool
    may_open_pull_requests: bool
    path: list[str] = field(default_factory=list)


StandIn = Callable[[Job, Mapping[str, str]], None]


def stand_in(action: str) -> StandIn:
    """Return what stands in for an action.

    :raises Refused: nothing does.
    """
    if action not in STAND_INS:
        raise Refused(f"the rehearsal has nothing to do instead of {action}")
    return STAND_INS[action]


def _checkout(job: Job, given: Mapping[str, str]) -> None:
    ref = given.get("ref", "")
    shallow = given.get("fetch-depth", "1") != "0"
    if ref and shallow:
        raise Refused("the rehearsal checks out a ref only with its whole history")
    git("clone", "--quiet", *(["--depth", "1"] if shallow else []), f"file://{job.origin}", job.workspace)
    if ref:
        git("-C", job.workspace, "checkout", "--quiet", ref)
    if not job.may_push or given.get("persist-credentials") == "false":
        git("-C", job.workspace, "remote", "set-url", "--push", "origin", NO_CREDENTIALS)


def _python(job: Job, _: Mapping[str, str]) -> None:
    subprocess.run([sys.executable, "-m", "virtualenv", "--quiet", job.home / "python"], check=True)
    job.path.insert(0, str(job.home / "python/bin"))


def _cosign(job: Job, _: Mapping[str, str]) -> None:
    job.path.insert(0, str(programs.directory("cosign")))


def _login(job: Job, given: Mapping[str, str]) -> None:
    command = ["docker", "login", "--username", given["username"], "--password-stdin", given["registry"]]
    subprocess.run(command, input=given["password"], env=job.environment, check=True, capture_output=True, text=True)


def _upload(job: Job, given: Mapping[str, str]) -> None:
    source = job.workspace / given["path"]
    if source.exists():
        shutil.copytree(source, job.artifacts / given["name"])


def _upload_site(job: Job, given: Mapping[str, str]) -> None:
    source = job.workspace / given["path"]
    if not (source / "index.html").is_file():
        raise Refused(f"{source} is no site")
    shutil.copytree(source, job.artifacts / SITE)


def _deploy_site(job: Job, _: Mapping[str, str]) -> None:
    if not (job.artifacts / SITE / "index.html").is_file():
        raise Refused(f"{job.name} has uploaded no site")


def _pull_request(job: Job, given: Mapping[str, str]) -> None:
    if not (job.may_push and job.may_open_pull_requests):
        raise Refused(f"{job.name} may not open a pull request")
    here = ("-C", job.workspace)
    git(*here, "switch", "--quiet", "--create", given["branch"])
    git(*here, "add", "--", *given["add-paths"].replace(",", " ").split())
    if not subprocess.run(["git", *here, "diff", "--cached", "--quiet"], check=False).returncode:
        return
    git(*here, "-c", "core.hooksPath=/dev/null", "commit", "--quiet", "--message", given["commit-message"], env=BOT)
    git(*here, "push", "--quiet", "--force", job.origin, f"HEAD:refs/heads/{given['branch']}")


STAND_INS: Mapping[str, StandIn] = {
    "actions/checkout": _checkout,
    "actions/setup-python": _python,
    "sigstore/cosign-installer": _cosign,
    "docker/login-action": _login,
    "actions/upload-artifact": _upload,
    "actions/upload-pages-artifact": _upload_site,
    "actions/deploy-pages": _deploy_site,
    "peter-evans/create-pull-request": _pull_request,
}


def git(*words: str | os.PathLike[str], env: Mapping[str, str] | None = None) -> None:
    """Run git.

    :param env: variables that are added.
    """
    subprocess.run(["git", *words], check=True, env={**os.environ, **(env or {})})

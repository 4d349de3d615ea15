"""Lets the engine pull an image, and shows its progress."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any, Final

import docker
import docker.errors

from torchstrata import platforms, progress
from torchstrata.building.engine import NO_SPACE
from torchstrata.containers import running
from torchstrata.errors import DiskFullError, RegistryAuthError, RegistryError
from torchstrata.progress import Step
from torchstrata.registry import credentials
from torchstrata.text import printable

ABSENT = ("not found", "manifest unknown", "name unknown")
REFUSED = ("unauthorized", "denied", "authorization failed", "no basic auth")

FIRST_WORD: Final = 60.0
"""Seconds until a registry must have answered the engine, which waits without end for one that stays silent."""

SILENCE: Final = 15.0
"""Seconds without a word of the engine after which one is said about that: it may unpack a large layer, or a registry has gone silent."""


def pull(client: docker.DockerClient, name: str, platform: str, step: Step, seconds: float = FIRST_WORD) -> bool:
    """Pull ``HOST/REPOSITORY:TAG`` for a platform; return whether the registry has it.

    :param seconds: to wait for the registry's first answer.
    :raises RegistryAuthError: it wants credentials.
    :raises RegistryError: it cannot be reached, or stays silent.
    :raises DiskFullError: the engine's disk is full.
    """
    seen: dict[str, tuple[int, int]] = {}
    with running.refusals():
        try:
            for event in _events(client, name, platform, step, seconds):
                if "error" in event:
                    return _failed(name, str(event["error"]))
                _tell(event, seen, step)
        except docker.errors.APIError as error:
            return _failed(name, str(error.explanation))
    return True


def _events(client: docker.DockerClient, name: str, platform: str, step: Step, seconds: float) -> Iterator[dict[str, Any]]:
    """Yield what the engine says of a pull; a thread that waits for it in vain is left behind, and ends with the program, as the pull does."""
    said: queue.SimpleQueue[dict[str, Any] | Exception | None] = queue.SimpleQueue()
    repository, _, tag = name.rpartition(":")
    login = _login(name.partition("/")[0])

    def ask() -> None:
        try:
            for event in client.api.pull(repository, tag=tag, platform=platforms.foreign(platform), auth_config=login, stream=True, decode=True):
                said.put(event)
            said.put(None)
        except Exception as error:  # noqa: BLE001  # raised again in the caller's thread
            said.put(error)

    threading.Thread(target=ask, name="pull", daemon=True).start()
    event = _first(said, name, seconds)
    while event is not None:
        if isinstance(event, Exception):
            raise event
        yield event
        event = _next(said, step)


def _login(host: str) -> dict[str, str] | None:
    """Return who we are to a registry, as engines are told; docker-py takes a helper that does not work for the engine.

    :raises RegistryAuthError: it does not.
    """
    login = credentials.find(host)
    return {"username": login.username, "password": login.password, "identitytoken": login.identity_token} if login else None


def _first(said: queue.SimpleQueue[Any], name: str, seconds: float) -> Any:
    host = name.partition("/")[0]
    try:
        with progress.overdue(f"waiting for {host}, which the engine asks for {name}, {seconds:.0f} s at most"):
            return said.get(timeout=seconds)
    except queue.Empty:
        fix = "check name, port, network and proxy of the engine; or name another registry: --registry HOST[/PATH]"
        raise RegistryError(f"{host} has not answered the engine for {seconds:g} s: pull {name}", fix=fix) from None


def _next(said: queue.SimpleQueue[Any], step: Step) -> Any:
    waited = 0.0
    while True:
        try:
            return said.get(timeout=SILENCE)
        except queue.Empty:
            waited += SILENCE
            step.note(f"the engine says nothing since {waited:.0f} s")


def _tell(event: dict[str, object], seen: dict[str, tuple[int, int]], step: Step) -> None:
    """Show the bytes of all layers that are under way or done."""
    detail = event.get("progressDetail")
    if event.get("status") == "Downloading" and isinstance(detail, dict) and detail.get("total"):
        seen[str(event["id"])] = int(detail["current"]), int(detail["total"])
        done, total = (sum(column) for column in zip(*seen.values(), strict=True))
        step.note(f"{progress.size(done)} of {progress.size(total)}")


def _failed(name: str, cause: str) -> bool:
    """Return that the registry has no such image; raise an error for any other cause."""
    said = printable(cause, 300)
    if any(word in cause for word in ABSENT):
        return False
    if NO_SPACE in cause:
        fix = "free space (docker image prune, docker buildx prune), and try again: what was pulled is kept"
        raise DiskFullError(f"the engine's disk is full: {said}", fix=fix)
    if any(word in cause for word in REFUSED):
        raise RegistryAuthError(f"{name}: {said}", fix=f"docker login {name.partition('/')[0]}, and try again")
    fix = "look at the network and at the registry, and try again"
    raise RegistryError(f"{name} cannot be pulled: {said}", fix=fix)

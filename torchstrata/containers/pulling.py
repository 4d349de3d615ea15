"""Lets the engine pull an image, and shows its progress."""

from __future__ import annotations

import docker
import docker.errors

from torchstrata import platforms, progress
from torchstrata.containers import running
from torchstrata.errors import DiskFullError, RegistryAuthError, RegistryError
from torchstrata.progress import Step
from torchstrata.text import printable

ABSENT = ("not found", "manifest unknown", "name unknown")
REFUSED = ("unauthorized", "denied", "authorization failed", "no basic auth")


def pull(client: docker.DockerClient, name: str, platform: str, step: Step) -> bool:
    """Pull ``HOST/REPOSITORY:TAG`` for a platform; return whether the registry has it.

    :raises RegistryAuthError: it wants credentials.
    :raises RegistryError: it cannot be reached.
    :raises DiskFullError: the engine's disk is full.
    """
    repository, _, tag = name.rpartition(":")
    seen: dict[str, tuple[int, int]] = {}
    with running.refusals():
        try:
            for event in client.api.pull(repository, tag=tag, platform=platforms.foreign(platform), stream=True, decode=True):
                if "error" in event:
                    return _failed(name, str(event["error"]))
                _tell(event, seen, step)
        except docker.errors.APIError as error:
            return _failed(name, str(error.explanation))
    return True


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
    if running.NO_SPACE in cause:
        fix = "free space (docker system prune), and try again: what was pulled is kept"
        raise DiskFullError(f"the engine's disk is full: {said}", fix=fix)
    if any(word in cause for word in REFUSED):
        raise RegistryAuthError(f"{name}: {said}", fix=f"docker login {name.partition('/')[0]}, and try again")
    fix = "look at the network and at the registry, and try again"
    raise RegistryError(f"{name} cannot be pulled: {said}", fix=fix)

"""Containers, volumes and images of verifications: their label, and removing them when their verification could not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

import docker
import docker.errors

from torchstrata import process
from torchstrata.building import engine

LABEL: Final = "torchstrata.verification"
"""Its value is the host's name and the process by which a verification can be told to be over."""

VARIABLE: Final = "TORCHSTRATA_VERIFICATION"
"""The value of the label, for processes that belong to the same verification."""


def labels() -> dict[str, str]:
    """Return the labels of what this verification starts."""
    return {LABEL: os.environ.setdefault(VARIABLE, process.name())}


def sweep(client: docker.DockerClient, *, own: bool = False) -> int:
    """Remove what verifications that are over have left; return how many things.

    :param own: remove what this one has started, too.
    :raises docker.errors.DockerException, requests.RequestException: the engine does not answer.
    """
    swept = 0
    for leftover, value in _labelled(client):
        if process.is_over(value) or (own and value == labels()[LABEL]):
            swept += _removed(leftover)
    return swept


def _labelled(client: docker.DockerClient) -> Iterator[tuple[Any, str]]:
    """Yield containers, then volumes and images, with the value of their label."""
    for container in client.containers.list(all=True, filters={"label": LABEL}, ignore_removed=True):
        yield container, container.labels[LABEL]
    for volume in client.volumes.list(filters={"label": LABEL}):
        yield volume, volume.attrs["Labels"][LABEL]
    for attributes in engine.listed(client, filters={"label": LABEL}):
        yield client.images.prepare_model(attributes), attributes["Labels"][LABEL]


def _removed(leftover: Any) -> int:
    options = {"v": True} if hasattr(leftover, "status") else {}
    try:
        leftover.remove(force=True, **options)
    except docker.errors.NotFound:
        return 0
    except docker.errors.APIError as error:
        if error.status_code != HTTPStatus.CONFLICT:  # which it is while somebody else removes it
            raise
        return 0
    return 1

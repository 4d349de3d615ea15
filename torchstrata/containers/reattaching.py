"""Brings up the container that somebody wants: the one of that name, or a new one.

Nothing is left of a new one that did not come up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from docker.models.containers import Container

from torchstrata.containers import loopback, running
from torchstrata.containers.description import SSH
from torchstrata.containers.keepsakes import Keepsakes
from torchstrata.containers.running import HALF_MADE, Containers, LimitsRefused, Order
from torchstrata.errors import BusyPortError, NameTakenError, OutdatedContainerError, TorchstrataError
from torchstrata.image.runtime import WORKSPACE
from torchstrata.progress import Step

TRIES: Final = 3
"""How often a container is made: with other ports where somebody was quicker, or without limits."""

HOST_KEYS: Final = (
    "/home/dev/.config/torchstrata/ssh/ssh_host_ed25519_key.pub",
    "/workspace/.torchstrata/ssh/ssh_host_ed25519_key.pub",
)
"""Where a container keeps the key by which its clients know it."""


def bring_up(containers: Containers, order: Order, step: Step, *, anew: bool, seconds: float) -> Container:
    """Return the container, running and healthy.

    :param anew: replace the container of that name; its workspace and home stay.
    :param seconds: to wait for its services.
    :raises NameTakenError: the container of that name is not ours, or not what was asked for.
    :raises OutdatedContainerError: its tag names another image now.
    :raises BusyPortError: a port is taken.
    :raises ContainerError: it cannot be started, or does not become ready.
    """
    existing = containers.find(order.description.name)
    if existing is not None and existing.status == HALF_MADE:
        running.remove(existing)
        existing = None
    if existing is None:
        container = _anew(containers, order, step, seconds)
    elif anew:
        with _aside(existing):
            container = _anew(containers, order, step, seconds)
    else:
        container = _again(existing, order, step, seconds)
    _know(container, order)
    return container


@contextlib.contextmanager
def _aside(container: Container) -> Iterator[None]:
    """Stop a container and rename it while another takes its place; then remove it, or restore it if that fails."""
    ran, own_name = container.status == "running", str(container.name)
    try:
        running.stop(container)
        running.rename(container, f"{own_name}-{container.short_id.removeprefix('sha256:')}")
        yield
    except BaseException:
        running.stop(container)  # the engine goes on with a stop whose caller has gone
        running.rename(container, own_name)
        if ran:
            running.start(container)
        raise
    running.remove(container)


def _again(container: Container, order: Order, step: Step, seconds: float) -> Container:
    """Go on with a container; stop it again if it does not come up."""
    _check(container, order)
    if container.status == "running":
        running.wait(container, seconds, step)
        return container
    try:
        running.start(container)
        running.wait(container, seconds, step)
    except BaseException:
        with contextlib.suppress(TorchstrataError):  # the first error says what is the matter
            running.stop(container)
        raise
    return container


def _check(container: Container, order: Order) -> None:
    """Refuse a container that is not what was asked for; leave it as it is."""
    name, wanted = container.name, order.description
    if container.attrs["Image"] != order.identity:
        stays = f"it stays as it is (inv jupyter {name}, inv ssh {name})"
        raise OutdatedContainerError(
            f"{name} is of another image than {order.tag} is now; {stays}",
            fix="the same command with --replace makes it anew: workspace and home stay, what was installed in it goes",
        )
    differences = [*_other_settings(container, order)]
    if (workspace := running.source(container, WORKSPACE)) != wanted.workspace:
        differences.append(f"the workspace {workspace}")
    if differences:
        fix = "ask for that, take another --name, or add --replace: that makes it anew"
        raise NameTakenError(f"{name} is there with {', '.join(differences)}", fix=fix)


def _other_settings(container: Container, order: Order) -> Iterator[str]:
    """Yield what was asked for, and is another way in a container: nobody can change it there."""
    bindings = running.bindings(container)
    ports = {binding.name: binding.published for binding in bindings}
    other = [service for service, port in order.ports.items() if ports.get(service) != port]
    yield from (f"port {ports[service]} for {service}" if service in ports else f"no {service}" for service in other)
    if order.needs_ssh and SSH not in {*ports, *other}:
        yield "no ssh"
    elif order.identity_file and not set(order.description.authorized_keys) <= set(running.authorized(container)):
        yield "another key for ssh"
    addresses = {binding.address for binding in bindings}
    if order.address and addresses - {order.address}:
        yield f"ports at {', '.join(sorted(addresses))}"
    shm = container.attrs["HostConfig"].get("ShmSize")
    if order.shm and shm != order.shm:
        yield f"{(shm or 0) / (1 << 30):g} GB of /dev/shm"


def _anew(containers: Containers, order: Order, step: Step, seconds: float) -> Container:
    with _undone(containers, order):
        container = _started(containers, order)
        running.wait(container, seconds, step)
    return container


def _started(containers: Containers, order: Order) -> Container:
    """Make a container and start it.

    Where somebody was quicker it takes other ports, unless these were asked for. It does without limits that the
    engine may not set.
    """
    wanted, taken = order.description, containers.published()
    for tries_left in reversed(range(TRIES)):
        endpoints = loopback.publish(wanted.endpoints, wanted.address, order.ports, taken)
        container = containers.create(replace(order, description=replace(wanted, endpoints=endpoints)))
        try:
            running.start(container)
        except BusyPortError:
            if order.ports or not tries_left:
                raise
            taken |= {endpoint.published for endpoint in endpoints}
        except LimitsRefused:
            if not order.limits:
                raise
            order = replace(order, limits={})
        else:
            return container
        running.remove(container)
    raise AssertionError(TRIES)


@contextlib.contextmanager
def _undone(containers: Containers, order: Order) -> Iterator[None]:
    """Where the block fails or is interrupted, remove what this process has made, and nothing else."""
    keepsakes, volume = Keepsakes.of(order.description.name), order.description.volume
    had_volume, had_token = containers.has_volume(volume), keepsakes.read_token() is not None
    keepsakes.make_token(int(order.description.user.split(":")[0]))
    try:
        yield
    except BaseException:
        with contextlib.suppress(TorchstrataError):  # the first error says what is the matter
            for container in containers.made_by(order.run):
                running.remove(container)
            if not had_volume:
                containers.discard_volume(volume)
        with contextlib.suppress(TorchstrataError):
            if not had_token:
                keepsakes.forget()
        raise


def _know(container: Container, order: Order) -> None:
    """Remember the host key of a container that is ready, so that ssh need not ask whether it is the right one."""
    if order.description.has_ssh:
        keys = (running.text_of(container, path) for path in HOST_KEYS)
        if key := next(filter(None, keys), None):
            Keepsakes.of(order.description.name).know_host(key)

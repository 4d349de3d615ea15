"""Run the services that were planned at the start."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from container import health, jupyter, services, ssh, state, supervisor


def main(arguments: list[str]) -> int:
    """Run until the container is stopped; return the exit status."""
    del arguments
    log = supervisor.Log(secrets=jupyter.secrets())
    running = [_supervised(service) for service in services.recall() if not service.refused]
    try:
        return supervisor.run(running, os.environ, log)
    finally:
        state.remove()


def _supervised(service: services.Service) -> supervisor.Supervised:
    answers = partial(_answers, service)
    if service.name == "jupyter":
        return supervisor.Supervised(service.name, lambda: jupyter.command(service), answers, lambda: [jupyter.welcome(service)])
    home = Path(os.environ["HOME"])
    return supervisor.Supervised(service.name, lambda: ssh.prepare(service, home), answers, lambda: ssh.welcome(service))


def _answers(service: services.Service) -> bool:
    return not health.trouble(service)

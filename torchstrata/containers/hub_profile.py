"""A container that JupyterHub starts for each user, by DockerSpawner; and a Dockerfile for what a hub needs in it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from torchstrata.containers.description import HOME, ContainerDescription, Gpus
from torchstrata.image.runtime import DEV, WORKSPACE

FILE = "jupyterhub_config.py"

PROFILE = '''\
"""{title}, for each user of a JupyterHub on this machine.

Image: {image}
The hub needs its own part in it, of its own version:
docker build --build-arg JUPYTERHUB="$(jupyterhub --version)" --tag {name}-hub --file Dockerfile.hub .
Then: pip install dockerspawner, and jupyterhub --config {file}, beside the authenticator of your choice.
"""

import os

{imports}c = get_config()  # noqa: F821
c.JupyterHub.spawner_class = "dockerspawner.DockerSpawner"
c.JupyterHub.hub_ip = "0.0.0.0"
c.JupyterHub.hub_connect_ip = os.environ.get("HUB_CONNECT_IP", "172.17.0.1")  # the host, as containers of the engine's bridge see it
c.DockerSpawner.image = "{name}-hub"
c.DockerSpawner.pull_policy = "never"
c.DockerSpawner.cmd = ["jupyterhub-singleuser"]
c.DockerSpawner.remove = True
c.DockerSpawner.notebook_dir = "{workspace}"
c.DockerSpawner.volumes = {{"{name}-workspace-{{username}}": "{workspace}", "{name}-home-{{username}}": "{home}"}}
c.DockerSpawner.extra_create_kwargs = {{"user": "{user}"{platform}}}
c.DockerSpawner.extra_host_config = {{
    "shm_size": {shm},
    "ulimits": {limits},
{gpus}}}
'''

DOCKERFILE = """\
# {image}, and what JupyterHub needs in it, of the version of the hub.
FROM {platform}{parent}
ARG JUPYTERHUB
RUN pip install --no-cache-dir "jupyterhub==${{JUPYTERHUB}}"
"""


def render(description: ContainerDescription) -> Mapping[str, str]:
    """Return the hub's configuration, and the Dockerfile."""
    gpus, limits, platform = description.gpus, description.limits.items(), description.unusual_platform
    profile = PROFILE.format(
        title=description.title,
        image=description.image,
        name=description.label,
        file=FILE,
        workspace=WORKSPACE,
        home=HOME,
        user=DEV,
        platform=f', "platform": "{platform}"' if platform else "",
        shm=f'"{description.memory}"',
        limits=json.dumps([{"Name": name, "Soft": limit, "Hard": limit} for name, limit in limits]),
        imports="from docker.types import DeviceRequest\n\n" if gpus else "",
        gpus=_request(gpus) if gpus else "",
    )
    source = f"--platform={platform} " if platform else ""
    return {FILE: profile, "Dockerfile.hub": DOCKERFILE.format(image=description.image, platform=source, parent=_parent(description))}


def _request(gpus: Gpus) -> str:
    """Return the line that asks the engine for GPUs."""
    which = f"device_ids={json.dumps(gpus.devices)}" if gpus.devices else f"count={gpus.count}"
    return f'    "device_requests": [DeviceRequest({which}, capabilities=[["gpu"]])],\n'


def _parent(description: ContainerDescription) -> str:
    """Return the image as a build can name it: BuildKit asks a registry for digests, even if the engine has them."""
    return description.image if description.is_pullable else description.image.partition("@")[0]

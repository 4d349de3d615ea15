"""A container as JupyterHub starts one for each user, by DockerSpawner; and a Dockerfile for what a hub needs in the image."""

from __future__ import annotations

import json
from collections.abc import Mapping

from torchstrata.containers.description import HOME, ContainerDescription
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
c.DockerSpawner.extra_create_kwargs = {{"user": "{user}"}}
c.DockerSpawner.extra_host_config = {{
    "shm_size": {shm},
    "ulimits": {limits},
{gpus}}}
'''

DOCKERFILE = """\
# The image, and what JupyterHub needs in it, of the version of the hub.
FROM {image}
ARG JUPYTERHUB
RUN pip install --no-cache-dir "jupyterhub==${{JUPYTERHUB}}"
"""


def render(description: ContainerDescription) -> Mapping[str, str]:
    """Return the hub's configuration, and the Dockerfile."""
    gpus = description.gpus
    which = f"device_ids={json.dumps(gpus.devices)}" if gpus and gpus.devices else f"count={gpus.count if gpus else 0}"
    profile = PROFILE.format(
        title=description.title,
        image=description.image,
        name=description.label,
        file=FILE,
        workspace=WORKSPACE,
        home=HOME,
        user=DEV,
        shm=f'"{description.memory}"',
        limits=json.dumps([{"Name": limit, "Soft": value, "Hard": value} for limit, value in description.limits.items()]),
        imports="from docker.types import DeviceRequest\n\n" if gpus else "",
        gpus=f'    "device_requests": [DeviceRequest({which}, capabilities=[["gpu"]])],\n' if gpus else "",
    )
    return {FILE: profile, "Dockerfile.hub": DOCKERFILE.format(image=description.image)}

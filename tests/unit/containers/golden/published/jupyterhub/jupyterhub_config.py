"""PyTorch 2.8.0 with CUDA 12.8 (for hosts of CUDA 12.1) on debian13, flavour ssh, for each user of a JupyterHub on this machine.

Image: registry.example/team/pytorch-cuda:2.8-cu121-ssh@sha256:c0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffee1234
The hub needs its own part in it, of its own version:
docker build --build-arg JUPYTERHUB="$(jupyterhub --version)" --tag torchstrata-2-8-cu121-ssh-hub --file Dockerfile.hub .
Then: pip install dockerspawner, and jupyterhub --config jupyterhub_config.py, beside the authenticator of your choice.
"""

import os

from docker.types import DeviceRequest

c = get_config()  # noqa: F821
c.JupyterHub.spawner_class = "dockerspawner.DockerSpawner"
c.JupyterHub.hub_ip = "0.0.0.0"
c.JupyterHub.hub_connect_ip = os.environ.get("HUB_CONNECT_IP", "172.17.0.1")  # the host, as containers of the engine's bridge see it
c.DockerSpawner.image = "torchstrata-2-8-cu121-ssh-hub"
c.DockerSpawner.pull_policy = "never"
c.DockerSpawner.cmd = ["jupyterhub-singleuser"]
c.DockerSpawner.remove = True
c.DockerSpawner.notebook_dir = "/workspace"
c.DockerSpawner.volumes = {"torchstrata-2-8-cu121-ssh-workspace-{username}": "/workspace", "torchstrata-2-8-cu121-ssh-home-{username}": "/home/dev"}
c.DockerSpawner.extra_create_kwargs = {"user": "1000:0"}
c.DockerSpawner.extra_host_config = {
    "shm_size": "8g",
    "ulimits": [{"Name": "memlock", "Soft": -1, "Hard": -1}, {"Name": "stack", "Soft": 67108864, "Hard": 67108864}],
    "device_requests": [DeviceRequest(count=-1, capabilities=[["gpu"]])],
}

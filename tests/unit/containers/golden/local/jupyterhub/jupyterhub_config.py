"""PyTorch 2.13.0 with no CUDA on debian12, flavour jupyter, for each user of a JupyterHub on this machine.

Image: pytorch-cuda:2.13-cpu-jupyter@sha256:c0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffee1234
The hub needs its own part in it, of its own version:
docker build --build-arg JUPYTERHUB="$(jupyterhub --version)" --tag it-s-mine-hub --file Dockerfile.hub .
Then: pip install dockerspawner, and jupyterhub --config jupyterhub_config.py, beside the authenticator of your choice.
"""

import os

c = get_config()  # noqa: F821
c.JupyterHub.spawner_class = "dockerspawner.DockerSpawner"
c.JupyterHub.hub_ip = "0.0.0.0"
c.JupyterHub.hub_connect_ip = os.environ.get("HUB_CONNECT_IP", "172.17.0.1")  # the host, as containers of the engine's bridge see it
c.DockerSpawner.image = "it-s-mine-hub"
c.DockerSpawner.pull_policy = "never"
c.DockerSpawner.cmd = ["jupyterhub-singleuser"]
c.DockerSpawner.remove = True
c.DockerSpawner.notebook_dir = "/workspace"
c.DockerSpawner.volumes = {"it-s-mine-workspace-{username}": "/workspace", "it-s-mine-home-{username}": "/home/dev"}
c.DockerSpawner.extra_create_kwargs = {"user": "1000:0"}
c.DockerSpawner.extra_host_config = {
    "shm_size": "512m",
    "ulimits": [{"Name": "memlock", "Soft": -1, "Hard": -1}, {"Name": "stack", "Soft": 67108864, "Hard": 67108864}],
}

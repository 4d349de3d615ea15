"""Jupyter in a container. The lowest in rank: what people have in ``~/.jupyter`` and on the command line wins.

The start of the container writes ``settings`` (see container/jupyter.py), readable by the container's user alone.
"""

import os
import sys
from pathlib import Path

sys.path.append("/usr/local/lib/torchstrata")
from container import mounts, state

sys.path.remove("/usr/local/lib/torchstrata")
EXAMPLES = {
    "ResNet-50 inference": "resnet50_inference.py",
    "Defect detection": "defect_detection.ipynb",
    "Training on several GPUs": "ddp_train.py",
}

c = get_config()  # type: ignore[name-defined]  # noqa: F821  # Jupyter's
settings = state.read(state.JUPYTER) or {}

if settings:
    c.IdentityProvider.token = settings["token"]
    c.PasswordIdentityProvider.hashed_password = settings["password"]
    c.ServerApp.allow_root = settings["root"]  # root of a user namespace only
    c.ServerApp.base_url = settings["base_url"]
    c.ServerApp.certfile = settings["certificate"]
    c.ServerApp.keyfile = settings["key"]

if "JUPYTER_RUNTIME_DIR" in os.environ and not mounts.is_volume(str(Path.home()), mounts.read()):
    c.NotebookNotary.data_dir = os.environ["JUPYTER_RUNTIME_DIR"]  # the secret that signs notebooks, else in the home

c.ServerApp.ip = ""  # every interface, IPv6 too
c.ServerApp.open_browser = False
c.ServerApp.root_dir = "/workspace"
c.ServerApp.contents_manager_class = "torchstrata_jupyter.contents.WorkspaceManager"
c.ServerApp.quit_button = False
c.FileContentsManager.delete_to_trash = False
c.KernelManager.shutdown_wait_time = 1.0  # SIGTERM after half of it, SIGKILL at its end: a stop of the container has 2 s
c.KernelManager.transport = "ipc"  # sockets in the private runtime directory instead of ports that anybody could speak to
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.handlers.announcements.NeverCheckForUpdate"

c.ServerProxy.servers = {
    "tensorboard": {
        "command": ["/opt/venv/bin/tensorboard", "--logdir", "/workspace/logs", "--host", "127.0.0.1", "--port", "{port}"],
        "timeout": 60,
        "launcher_entry": {"title": "TensorBoard", "category": "Other"},
    },
} | {
    f"example-{name}": {
        "command": [],
        "port": 9,  # never asked: the launcher opens the path below instead
        "launcher_entry": {"title": title, "category": "Notebook" if name.endswith(".ipynb") else "Other", "path_info": f"lab/tree/examples/{name}"},
    }
    for title, name in EXAMPLES.items()
}

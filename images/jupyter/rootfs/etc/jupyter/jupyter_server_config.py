"""Jupyter in a container. What people have in ``~/.jupyter`` and on the command line wins over this.

The container's start or the environment says who may enter: see ``torchstrata_jupyter.access``.
"""

import os
import sys
from pathlib import Path

from torchstrata_jupyter import access

sys.path.append("/usr/local/lib/torchstrata")
from container import mounts

sys.path.remove("/usr/local/lib/torchstrata")
EXAMPLES = {
    "ResNet-50 inference": "resnet50_inference.py",
    "Defect detection": "defect_detection.ipynb",
    "Training on several GPUs": "ddp_train.py",
}

c = get_config()  # type: ignore[name-defined]  # noqa: F821  # Jupyter's
asked = access.settings()

if asked["token"] or asked["password"]:
    c.IdentityProvider.token = asked["token"]
    c.PasswordIdentityProvider.hashed_password = asked["password"]
if asked["port"]:
    c.ServerApp.port = asked["port"]
if asked["base_url"] != "/":
    c.ServerApp.base_url = asked["base_url"]
if asked["certificate"]:
    c.ServerApp.certfile = asked["certificate"]
    c.ServerApp.keyfile = asked["key"]

if "JUPYTER_RUNTIME_DIR" in os.environ and not mounts.is_volume(str(Path.home()), mounts.read()):
    c.NotebookNotary.data_dir = os.environ["JUPYTER_RUNTIME_DIR"]  # the secret that signs notebooks, else in the home

c.IdentityProvider.cookie_options = {"samesite": "Lax"}  # proxied ports ask for no XSRF token: no other site's form or script reaches them
c.ServerApp.allow_root = asked["root"]  # root of a user namespace only
c.ServerApp.allow_unauthenticated_access = False  # also not to what an extension has forgotten to protect
c.ServerApp.ip = ""  # every interface, IPv6 too
c.ServerApp.max_body_size = c.ServerApp.max_buffer_size = 64 << 20  # of a request, also a stranger's; Lab uploads in pieces of 1 MiB
c.ServerApp.open_browser = False
c.ServerApp.root_dir = "/workspace"
c.ServerApp.contents_manager_class = "torchstrata_jupyter.contents.WorkspaceManager"
c.ServerApp.quit_button = False
c.FileContentsManager.delete_to_trash = False
c.FileContentsManager.always_delete_dir = True  # Lab asks before; without a trash a folder with content could not go
c.KernelManager.shutdown_wait_time = 1.0  # SIGTERM after half of it, SIGKILL at its end: a stop of the container has 2 s
c.KernelManager.transport = "ipc"  # sockets in the private runtime directory instead of ports that anybody could speak to
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.handlers.announcements.NeverCheckForUpdate"

c.ServerProxy.servers = {
    "tensorboard": {
        "command": ["/opt/venv/bin/tensorboard", "--logdir", "/workspace/logs", "--host", "127.0.0.1", "--port", "{port}"],
        "timeout": 60,
        "request_headers_override": {"Cookie": "", "Authorization": ""},  # Jupyter's
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

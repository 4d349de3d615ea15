# ruff: noqa: D100, PTH119
# Group 0, which the container's user has, may upgrade what root's pip puts into /opt/venv: images are derived with USER root.
import os
import sys

if os.geteuid() == 0 and sys.prefix == "/opt/venv" and {"pip", "pip3"} & {os.path.basename(word) for word in sys.orig_argv[1:4]}:
    os.umask(0o002)

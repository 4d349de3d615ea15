# ruff: noqa: D100, PTH119
# What root's pip puts into /opt/venv is for group 0 to upgrade, as what the user puts there is: images are derived with USER root.
import os
import sys

if os.geteuid() == 0 and sys.prefix == "/opt/venv" and {"pip", "pip3"} & {os.path.basename(word) for word in sys.orig_argv[1:4]}:
    os.umask(0o002)

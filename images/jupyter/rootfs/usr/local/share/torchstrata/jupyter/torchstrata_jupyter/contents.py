"""The files of the workspace, and the image's examples, which can be opened and run but not changed."""

from pathlib import Path
from typing import Final

from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager

EXAMPLES: Final = Path("/usr/local/share/torchstrata/examples")


class WorkspaceManager(AsyncLargeFileManager):  # type: ignore[misc]  # Jupyter has no types here
    """Serves ``examples/`` from the image where the workspace has no directory of that name; nothing is copied into it."""

    def _get_os_path(self, path: str) -> str:
        """Return the file that an API path stands for."""
        own = str(super()._get_os_path(path))
        parts = path.strip("/").split("/")
        if parts[0] != "examples" or len(parts) > 2 or (Path(self.root_dir) / "examples").exists():  # noqa: PLR2004
            return own
        return str(EXAMPLES.joinpath(*parts[1:]))

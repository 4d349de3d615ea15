"""The files of the workspace, and the image's examples, which can be opened and run but not changed."""

from functools import cached_property
from pathlib import Path
from typing import Any, Final

from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from tornado.web import HTTPError

SHARE: Final = Path("/usr/local/share/torchstrata")
EXAMPLES: Final = "examples"


class WorkspaceManager(AsyncLargeFileManager):  # type: ignore[misc]  # Jupyter has no types here
    """Serves ``examples/`` from the image where the workspace has no directory of that name; nothing is copied into it."""

    @cached_property
    def _examples(self) -> AsyncLargeFileManager:
        return AsyncLargeFileManager(parent=self.parent, root_dir=str(SHARE))

    def _manager(self, path: str) -> Any:
        """Return what reads ``path``: this class's parent, or what serves examples."""
        return self._examples if self._is_example(path) else super()

    def _is_example(self, path: str) -> bool:
        return path.strip("/").split("/")[0] == EXAMPLES and not (Path(self.root_dir) / EXAMPLES).exists()

    async def get(self, path: str, *arguments: Any, **options: Any) -> Any:
        """Return the model of a file or directory."""
        return await self._manager(path).get(path, *arguments, **options)

    async def save(self, model: Any, path: str = "") -> Any:
        """Save a file of the workspace; examples are to be saved under another name."""
        if self._is_example(path):
            raise HTTPError(403, "examples are read-only: save under another name, outside of examples/")
        return await super().save(model, path)

    async def file_exists(self, path: str) -> bool:
        """Return whether ``path`` is a file."""
        return bool(await self._manager(path).file_exists(path))

    async def dir_exists(self, path: str) -> bool:
        """Return whether ``path`` is a directory."""
        return bool(await self._manager(path).dir_exists(path))

    async def is_hidden(self, path: str) -> bool:
        """Return whether ``path`` is not to be shown."""
        return bool(await self._manager(path).is_hidden(path))

    async def list_checkpoints(self, path: str) -> Any:
        """Return the saved states of a file; examples have none."""
        return [] if self._is_example(path) else await super().list_checkpoints(path)

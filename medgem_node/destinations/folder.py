"""A folder that takes result objects as files: `folder:///path`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydicom import Dataset

from medgem_node import part10, plug
from medgem_node.config import Config
from medgem_node.errors import ConfigError, DeliveryFailed


class FolderDestination:
    """Writes each result durably as `<SOP Instance UID>.dcm`; a second time replaces it with the same."""

    def __init__(self, folder: Path) -> None:
        self._store = plug.open_store(folder.as_uri())

    def send(self, results: Sequence[Dataset]) -> None:
        """Returns when every file is on the disk."""
        delivered: set[str] = set()
        for result in results:
            try:
                self._store.put(f"{result.SOPInstanceUID}.dcm", part10.encode(result))
            except OSError as exc:
                raise DeliveryFailed(f"folder cannot be written ({exc.strerror})", delivered) from exc
            delivered.add(str(result.SOPInstanceUID))


def create(url: str, config: Config) -> FolderDestination:
    """The destination that `url` writes."""
    parts = urlsplit(url)
    if parts.netloc or not parts.path.startswith("/"):
        raise ConfigError(f'"{url}": a folder is written folder:///absolute/path')
    return FolderDestination(Path(unquote(parts.path)))

"""A PACS that takes C-STORE: `dimse://AETITLE@host:port`."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom import Dataset

from medgem_node.config import Config
from medgem_node.dimse import scu
from medgem_node.peer import Peer


class DimseDestination:
    """Sends by C-STORE in one association and looks at every status."""

    def __init__(self, peer: Peer, calling: str, timeout_seconds: float) -> None:
        self._peer = peer
        self._calling = calling
        self._timeout_seconds = timeout_seconds

    def send(self, results: Sequence[Dataset]) -> None:
        """Returns when the peer answered success for every result."""
        scu.store(self._peer, self._calling, results, self._timeout_seconds)


def create(url: str, config: Config) -> DimseDestination:
    """The destination that `url` writes."""
    return DimseDestination(Peer.parse(url), config.node.ae_title, config.delivery.timeout_seconds)

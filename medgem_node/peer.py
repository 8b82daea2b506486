"""A DICOM peer and the rules of its parts, parsed once at the edge."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from medgem_node.errors import ConfigError

_AE_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}")


def ae_title(text: str) -> str:
    """An application entity title (PS3.5 6.2: 16 characters at most, no backslash, no control). Raises ConfigError."""
    title = text.strip()
    if not title or not _AE_TITLE.fullmatch(title):
        raise ConfigError(f'"{text}" is no AE title; use 1 to 16 ASCII characters without backslash')
    return title


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom to call: `dimse://PACS@10.0.0.5:104?calling=MEDGEM`. `calling` is empty for the node's own title."""

    ae_title: str
    host: str
    port: int
    calling: str = ""

    @classmethod
    def parse(cls, url: str) -> Peer:
        """The peer that `url` writes. Raises ConfigError."""
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = None
        query = parse_qs(parts.query)
        if (
            parts.scheme != "dimse"
            or not parts.username
            or not parts.hostname
            or not port
            or query.keys() - {"calling"}
        ):
            raise ConfigError(
                f'"{url}" is no DICOM peer; write dimse://AETITLE@host:port, as dimse://PACS@10.0.0.5:104'
            )
        calling = query.get("calling", [""])[0]
        return cls(ae_title(parts.username), parts.hostname, port, ae_title(calling) if calling else "")

    def __str__(self) -> str:
        return f"{self.ae_title} at {self.host}:{self.port}"

"""PS3.15 Annex E for whole instances: one call, a copy or CannotDeidentify."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping

from pydicom import Dataset
from pydicom.errors import InvalidDicomError

from medgem_node import part10
from medgem_node.deid.deidentifier import IMPLEMENTATION_CLASS_UID, UNPARSABLE, Copy, Deidentifier
from medgem_node.deid.options import BASIC, Profile, profile_of
from medgem_node.deid.pseudonym import Pseudonyms
from medgem_node.errors import CannotDeidentify, NotUnderstood

__all__ = ["IMPLEMENTATION_CLASS_UID", "Copy", "Deidentifier", "check_config", "deidentify", "deidentify_bytes"]

_MOST = 4
_local = threading.local()


def deidentify(instance: Dataset, pseudonyms: Pseudonyms, profile: Profile = BASIC) -> Dataset:
    """A de-identified copy of an instance, which stays as it is. Raises CannotDeidentify."""
    try:
        data = part10.encode(instance)
    except (*UNPARSABLE, InvalidDicomError, NotUnderstood) as exc:
        raise CannotDeidentify(f"the instance cannot be written ({type(exc).__name__})") from None
    return part10.decode(deidentify_bytes(data, pseudonyms, profile))


def deidentify_bytes(data: bytes, pseudonyms: Pseudonyms, profile: Profile = BASIC) -> bytes:
    """`Deidentifier.copy` as one string of bytes. Raises CannotDeidentify, LeakFound."""
    return _deidentifier(pseudonyms, profile).copy(data).data()


def check_config(config: Mapping[str, object]) -> None:
    """Refuse a `deid.toml` that cannot be followed. Raises ConfigError."""
    profile_of(config, "deid.toml")


def _deidentifier(pseudonyms: Pseudonyms, profile: Profile) -> Deidentifier:
    """The one that this thread used lately: it knows the actions and the people already."""
    kept: OrderedDict[tuple[int, Profile], Deidentifier] = _local.__dict__.setdefault("kept", OrderedDict())
    key = (id(pseudonyms), profile)
    made = kept.pop(key, None) or Deidentifier(pseudonyms, profile)
    kept[key] = made
    if len(kept) > _MOST:
        kept.popitem(last=False)
    return made

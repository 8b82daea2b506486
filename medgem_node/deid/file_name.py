"""What a copy's file is called: as the original's, unless that tells whom it shows."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from medgem_node.deid.pseudonym import Pseudonyms

_UID = re.compile(r"(?<![0-9])(?<![0-9]\.)[0-2](?:\.[0-9]+){2,}|(?<![0-9])[0-2](?:(?:_[0-9]+){4,}|(?:-[0-9]+){4,})")
_SURELY_UID = re.compile(r"[0-2](?:\.[0-9]+){4,}")  # with fewer numbers a version, unless it is one of the header's
_LONG = 20  # characters from which numbers between dashes are a UID
_MOST_NAMES = 1024
_SUFFIX = re.compile(r"(?i)\.(?:dcm|dicom|dic|ima|img|acr)\Z")

IsNamed = Callable[[str], bool]
"""Whether a text names the patient or staff of an instance."""


@dataclass(frozen=True, slots=True)
class FileNames:
    """Relative names for copies. Pure: same name and header, same answer."""

    pseudonyms: Pseudonyms
    keeps_uids: bool = False

    def written(self, name: str, is_named: IsNamed, uids: Collection[str]) -> tuple[str, dict[str, str]]:
        """The name of a copy, and what stands for which component in it.

        Parameters
        ----------
        uids
            The pseudonymous UIDs of the copy.
        """
        instead: dict[str, str] = {}
        for component in name.split("/"):
            if (made := self._component(component, is_named, uids)) != component:
                instead[component] = made
        return renamed(name, instead), instead

    def possible(self, name: str) -> Iterator[str]:
        """Every name that a copy may have had, for somebody who does not know whom the name tells of."""
        choices = []
        for component in name.split("/"):
            kept = self._component(component, lambda _: False, ())
            choices.append((kept, self._component(component, lambda _: True, ())))
        return itertools.islice(map("/".join, itertools.product(*choices)), _MOST_NAMES)

    def _component(self, component: str, is_named: IsNamed, uids: Collection[str]) -> str:
        """The component itself; with pseudonyms for its UIDs; or, if it names somebody, a digest under the key."""
        if not self.keeps_uids:
            rest, made = _UID.sub(" ", component), _UID.sub(lambda found: self._uid(found[0], uids), component)
        else:
            rest = made = component
        if not is_named(rest if made != component else component):
            return made
        suffix = _SUFFIX.search(component)
        return self.pseudonyms.digest("file name", component)[:16] + (suffix[0] if suffix else "")

    def _uid(self, text: str, uids: Collection[str]) -> str:
        mark = "_" if "_" in text else "-" if "-" in text else "."
        uid = self.pseudonyms.uid(text.replace(mark, "."))
        is_uid = _SURELY_UID.fullmatch(text) or len(text) >= _LONG or uid in uids
        return uid.replace(".", mark) if is_uid else text


def renamed(name: str, instead: Mapping[str, str]) -> str:
    """A relative name with other components for those of `instead`."""
    return "/".join(instead.get(component, component) for component in name.split("/")) if instead else name

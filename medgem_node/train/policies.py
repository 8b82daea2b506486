"""What is learnt of a label that is uncertain, or not mentioned; said for each label by the recipe.

`policy = { default = "ignore", Edema = "ones", Atelectasis = { uncertain = [0.55, 0.85], blank = "zeros" } }`

An uncertain label (-1) is learnt as `ones`, as `zeros`, not at all (`ignore`), or as a number between two (soft labels,
Pham et al. 2021), drawn once and for all for each film and label. A blank one was not mentioned, which is no denial: it
is not learnt from, unless `blank = "zeros"` says that whoever wrote the labels leaves out what is not there.

References: Irvin et al. 2019, arXiv:1901.07031; Pham et al. 2021, arXiv:1911.06475.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from medgem_node.errors import ConfigError
from medgem_node.train.catalogues.catalogue import UNCERTAIN

_UNCERTAIN = {"ones": (1.0, 1.0), "zeros": (0.0, 0.0), "ignore": None}
_DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Policy:
    """Of one label. `uncertain`: the least and the greatest of what is learnt; None: nothing is."""

    uncertain: tuple[float, float] | None = None
    blank_is_absent: bool = False

    def target(self, label: int | None, film: str, name: str) -> float | None:
        """What is learnt, 0..1, of the label `name` of a film; None: nothing."""
        if label is None:
            return 0.0 if self.blank_is_absent else None
        if label != UNCERTAIN:
            return float(label)
        if self.uncertain is None:
            return None
        low, high = self.uncertain
        return low + (high - low) * _drawn(film, name)


@dataclass(frozen=True, slots=True)
class Policies:
    """A source's: for some labels their own, for the others one."""

    own: Mapping[str, Policy]
    default: Policy = Policy()

    @classmethod
    def parse(cls, table: Mapping[str, Any], labels: Collection[str], where: str) -> Policies:
        """The table `policy` of the source `where`; `labels`: what may be named, empty for any. Raises ConfigError."""
        if labels and (odd := sorted(table.keys() - {_DEFAULT, *labels})):
            raise ConfigError(f'{where}: policy names "{odd[0]}"; its labels are {", ".join(sorted(labels))}')
        parsed = {name: _policy(value, f"{where}: policy of {name}") for name, value in table.items()}
        return cls({k: v for k, v in parsed.items() if k != _DEFAULT}, parsed.get(_DEFAULT, Policy()))

    def targets(self, labels: Mapping[str, int | None], film: str) -> dict[str, float]:
        """What is learnt of a film; a label that nothing is learnt of is not there."""
        made = {name: self.own.get(name, self.default).target(value, film, name) for name, value in labels.items()}
        return {name: target for name, target in made.items() if target is not None}


def _policy(value: Any, where: str) -> Policy:
    table = value if isinstance(value, Mapping) else {"uncertain": value}
    if odd := sorted(table.keys() - {"uncertain", "blank"}):
        raise ConfigError(f'{where}: unknown key "{odd[0]}"; known are uncertain and blank')
    blank = table.get("blank", "ignore")
    if blank not in ("ignore", "zeros"):
        raise ConfigError(f'{where}: blank is "ignore" or "zeros"')
    return Policy(_range(table.get("uncertain", "ignore"), where), blank == "zeros")


def _range(value: Any, where: str) -> tuple[float, float] | None:
    if isinstance(value, str) and value in _UNCERTAIN:
        return _UNCERTAIN[value]
    ends = value if isinstance(value, list | tuple) and len(value) == 2 else (2, 2)
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends):
        ends = (2, 2)
    low, high = (float(end) for end in ends)
    if not 0 <= low <= high <= 1:
        raise ConfigError(f'{where}: uncertain is "ones", "zeros", "ignore" or two numbers between 0 and 1 in order')
    return low, high


def _drawn(film: str, name: str) -> float:
    """Evenly spread over 0..1, the same for the same film and label in every run."""
    return int.from_bytes(hashlib.sha256(f"{name}\0{film}".encode()).digest()[:6], "big") / 2**48

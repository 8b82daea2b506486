"""Similar cases: an index of a site's own films by which those most alike are found. It holds no identity.

Of a film it keeps the embedding (float16), a label, and a name that is the keyed digest of its SOP Instance UID, made
by the caller for one tenant: it cannot be turned back without the node's key, and tells nothing of another tenant's.
A tenant has a folder of its own for each model; a search reads one of them and no other.

The vectors lie in `vectors-<digest>.safetensors`, the rest in `index.json`, which names them and is replaced whole: a
crash leaves the index as it was. One process fills a tenant's index at a time.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from medgem_node.errors import ConfigError, NotStored
from medgem_node.seams import Store

Vectors = NDArray[np.float32]
_TENANT = re.compile(r"[a-z0-9](-?[a-z0-9]){0,39}")
_LABEL = re.compile(r"[^\W\d_][\w /+()-]{0,63}")
_LONG_NUMBER = re.compile(r"\d{4}|\d\D+\d")  # a date, or a patient's number
_MOST_LABELS = 200
_TABLE = "index.json"
_AT_ONCE = 65536  # vectors: 64 MB of them as float32
MOST_NEIGHBOURS = 50


@dataclass(frozen=True, slots=True)
class Space:
    """What vectors can be compared: those of the same weights. `weights_sha256` is that of the model."""

    model: str
    version: str
    weights_sha256: str
    dimensions: int


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A film of the index; `distance` is 1 - cosine, 0 to 2."""

    case: str
    label: str
    distance: float


@dataclass(frozen=True, slots=True)
class Answer:
    """The films most alike, nearest first, and their labels beside those of the whole index."""

    neighbours: tuple[Neighbour, ...]
    films: int
    labels: Mapping[str, int] = field(default_factory=dict)

    @property
    def mix(self) -> dict[str, int]:
        """How many neighbours have each label, the most frequent first."""
        return dict(Counter(n.label for n in self.neighbours).most_common())

    def to_dict(self) -> dict[str, Any]:
        """As JSON keeps it."""
        near = [{"case": n.case, "label": n.label, "distance": round(n.distance, 4)} for n in self.neighbours]
        return {"neighbours": near, "mix": self.mix, "films": self.films, "labels": dict(self.labels)}


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """One tenant's films. `vectors`: (films, dimensions) float16, of length 1; `labels` by case, in their order."""

    space: Space
    labels: Mapping[str, str]
    vectors: NDArray[np.float16]

    @classmethod
    def empty(cls, space: Space) -> Index:
        """Without a film."""
        return cls(space, {}, np.zeros((0, space.dimensions), np.float16))

    def with_films(self, labels: Mapping[str, str], vectors: Mapping[str, Vectors]) -> Index:
        """With these films as well; a case that is there already is replaced."""
        rows = dict(zip(self.labels, self.vectors, strict=True))
        rows |= {case: _unit(vector).astype(np.float16) for case, vector in vectors.items()}
        merged = {**self.labels, **{case: labels[case] for case in vectors}}
        stacked = np.stack([rows[case] for case in merged]) if merged else self.vectors
        return Index(self.space, merged, stacked)

    def nearest(self, vector: Vectors, k: int, but_not: str = "") -> Answer:
        """The `k` films whose embeddings have the largest cosine with `vector`, by comparing all; equal ones in order.

        Parameters
        ----------
        but_not
            A case that is left out: the film that is asked about, if it is in the index itself.
        """
        if not 1 <= k <= MOST_NEIGHBOURS:
            raise ConfigError(f"{k} similar cases cannot be asked for; 1 to {MOST_NEIGHBOURS} can")
        cases = list(self.labels)
        near = self._cosines(_unit(vector))
        if but_not in self.labels:
            near[cases.index(but_not)] = -np.inf
        order = [n for n in np.argsort(-near, kind="stable")[:k].tolist() if near[n] > -np.inf]
        found = tuple(Neighbour(cases[n], self.labels[cases[n]], max(0.0, 1 - float(near[n]))) for n in order)
        return Answer(found, len(cases), dict(Counter(self.labels.values()).most_common()))

    def _cosines(self, vector: Vectors) -> Vectors:
        parts = (self.vectors[n : n + _AT_ONCE] for n in range(0, len(self.vectors), _AT_ONCE))
        products = [part.astype(np.float32) @ vector for part in parts]
        return np.concatenate(products) if products else np.zeros(0, np.float32)


def write(index: Index, store: Store, tenant: str) -> None:
    """Replace the tenant's index for this model whole."""
    folder = _folder(tenant, index.space.model)
    data = save_tensors({"vectors": index.vectors})
    digest = hashlib.sha256(data).hexdigest()
    name = f"vectors-{digest[:16]}.safetensors"
    table = {
        "model": index.space.model, "version": index.space.version, "weights_sha256": index.space.weights_sha256,
        "dimensions": index.space.dimensions, "vectors": name, "vectors_sha256": digest, "labels": dict(index.labels),
    }  # fmt: skip
    store.put(f"{folder}/{name}", data)
    store.put(f"{folder}/{_TABLE}", json.dumps(table, indent=1).encode())
    for key in list(store.keys(folder)):
        if not key.endswith(("/" + name, "/" + _TABLE)):
            store.delete(key)


def read(store: Store, tenant: str, space: Space) -> Index | None:
    """The tenant's index for this model; None if there is none.

    Raises
    ------
    ConfigError
        If it cannot be read, was altered, or holds embeddings of other weights.
    """
    folder = _folder(tenant, space.model)
    try:
        written = store.get(f"{folder}/{_TABLE}")
    except NotStored:
        return None
    try:
        table = json.loads(written)
        kept = Space(**{name: table[name] for name in ("model", "version", "weights_sha256", "dimensions")})
        labels, named, digest = dict(table["labels"]), str(table["vectors"]), str(table["vectors_sha256"])
    except (ValueError, KeyError, TypeError) as exc:
        raise ConfigError(f"the index of tenant {tenant} cannot be read; delete it and fill it anew") from exc
    if (kept.weights_sha256, kept.dimensions) != (space.weights_sha256, space.dimensions):
        raise ConfigError(
            f"the index of tenant {tenant} was filled by {kept.model} {kept.version} with other weights than "
            f"{space.model} {space.version} has; fill it anew with --replace"
        )
    return Index(space, labels, _vectors(store, f"{folder}/{named}", digest, (len(labels), space.dimensions), tenant))


def _vectors(store: Store, key: str, digest: str, shape: tuple[int, int], tenant: str) -> NDArray[np.float16]:
    try:
        data = store.get(key)
        vectors: NDArray[np.float16] = load_tensors(data)["vectors"]
    except (NotStored, SafetensorError, KeyError, ValueError) as exc:
        raise ConfigError(f"the index of tenant {tenant} misses its vectors; delete it and fill it anew") from exc
    if hashlib.sha256(data).hexdigest() != digest or vectors.shape != shape:
        raise ConfigError(f"the index of tenant {tenant} was altered; delete it and fill it anew")
    return vectors


def delete(store: Store, tenant: str) -> int:
    """Forget all of a tenant, of every model; how many files that were."""
    _check_tenant(tenant)
    return store.delete(tenant)


def read_labels(path: Path) -> dict[str, str]:
    """Label by file name, or by path below the folder of films: the columns `image` and `label` of a CSV, no others.

    Raises
    ------
    ConfigError
        If a column is missing, or a label looks like free text, which may name somebody: a category is at most 64
        letters, holds no long number, and there are at most 200 of them.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = [(row["image"], row["label"].strip()) for row in csv.DictReader(lines)]
    except (OSError, KeyError, AttributeError, UnicodeDecodeError, csv.Error) as exc:
        raise ConfigError(f"{path}: no CSV with the columns image, label ({type(exc).__name__})") from exc
    for line, (_, label) in enumerate(rows, 2):
        if label and (not _LABEL.fullmatch(label) or _LONG_NUMBER.search(label)):
            raise ConfigError(f"{path}: line {line}: the label is no category (letters first, at most 64, no dates)")
    if len({label for _, label in rows}) > _MOST_LABELS:
        raise ConfigError(f"{path}: more than {_MOST_LABELS} different labels; a label is a category, not a text")
    if repeated := [image for image, n in Counter(image for image, _ in rows).items() if n > 1]:
        raise ConfigError(f"{path}: {len(repeated)} images stand there twice; which label is true?")
    return {image: label for image, label in rows if label}


def _check_tenant(tenant: str) -> None:
    if not _TENANT.fullmatch(tenant):
        raise ConfigError(f'"{tenant}" is no name of a tenant; use small letters, digits and single hyphens')


def _folder(tenant: str, model: str) -> str:
    _check_tenant(tenant)
    return f"{tenant}/{model}"


def _unit(vector: Vectors) -> Vectors:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)

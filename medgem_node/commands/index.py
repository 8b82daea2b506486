"""Similar cases: filling a site's own index, and asking it."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from medgem_node.commands.common import Command, configured, model_arguments, say
from medgem_node.errors import ConfigError

if TYPE_CHECKING:
    from medgem_node.config import Config
    from medgem_node.deid.pseudonym import Pseudonyms
    from medgem_node.seams import Store

_SAVE_EVERY = 100  # films


def add(command: Command) -> None:
    """index, similar."""
    index = command("index", _index, "Fill a tenant's index of similar cases with its own labelled films.")
    index.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="DICOM files")
    index.add_argument("--labels", type=Path, metavar="CSV", help="columns image (file name), label (a category)")
    index.add_argument("--replace", action="store_true", help="begin anew, instead of adding what is not there yet")
    index.add_argument("--delete", action="store_true", help="forget the tenant's films, of every model")
    model_arguments(index)
    similar = command("similar", _similar, "The films of a tenant's index that are most alike a film.")
    similar.add_argument("file", type=Path, metavar="FILE", help="a DICOM file")
    similar.add_argument("-k", type=int, default=5, metavar="N", help="how many; default: 5")
    similar.add_argument("--json", action="store_true", help="as JSON")
    model_arguments(similar)
    for made in (index, similar):
        made.add_argument("--tenant", required=True, metavar="NAME", help="whose index; no other is looked at")
        made.add_argument("--out", type=Path, metavar="DIR", help="where indexes lie; default: similar/ in the data")


def _index(options: argparse.Namespace) -> int:
    from medgem_node import similar

    config = configured(options)
    store = _store(options, config)
    if options.delete:
        say(f"{similar.delete(store, options.tenant)} files of tenant {options.tenant} deleted")
        return 0
    if options.folder is None or options.labels is None:
        raise ConfigError("index needs a FOLDER of films and --labels CSV, or --delete")
    counts = _fill(options, config, store)
    kept = ", ".join(f"{reason} {n}" for reason, n in counts.most_common()) or "none"
    say(f"tenant {options.tenant}: {kept}")
    return 0 if counts["indexed"] or counts["there already"] else 1


def _fill(options: argparse.Namespace, config: Config, store: Store) -> Counter[str]:
    """Indexes the films that are not there yet; what became of each file, counted. No file's name is written."""
    from tqdm import tqdm

    from medgem_node import part10, similar
    from medgem_node.analyze import find_files
    from medgem_node.card import find_card
    from medgem_node.deid.keyring import keys_of
    from medgem_node.detector.embed import Embedder
    from medgem_node.errors import NotAnalysable, NotUnderstood

    labels = similar.read_labels(options.labels)
    card = find_card(config.models, options.model, options.version_of_model)
    embedder = Embedder(card)
    space = similar.Space(card.name, card.version, card.weights_sha256, embedder.dimensions)
    found = None if options.replace else similar.read(store, options.tenant, space)
    index = found or similar.Index.empty(space)
    pseudonyms = keys_of(config).node
    fresh, told, counts = {}, {}, Counter[str]()
    files = list(find_files([options.folder]))
    names = Counter(path.name for path in files)
    for path in tqdm(files, unit="file", disable=not sys.stderr.isatty()):
        label = labels.get(path.relative_to(options.folder).as_posix() if path != options.folder else path.name)
        if label is None and names[path.name] == 1:  # of two files of one name, nobody knows whose label it is
            label = labels.get(path.name)
        if label is None:
            counts["without a label" if names[path.name] == 1 else "of a name that is not the only one"] += 1
            continue
        try:
            instance = part10.decode(path.read_bytes())
            part10.check(instance, ("SOPInstanceUID",))
            case = _case(pseudonyms, options.tenant, str(instance.get("SOPInstanceUID") or ""))
            if case in index.labels:
                counts["there already"] += 1
                continue
            fresh[case], told[case] = embedder.embed(instance), label
            counts["indexed"] += 1
        except (NotAnalysable, NotUnderstood) as exc:
            counts[f"left out ({exc.reason if isinstance(exc, NotAnalysable) else 'not-dicom'})"] += 1
        if len(fresh) == _SAVE_EVERY:
            index = index.with_films(told, fresh)
            similar.write(index, store, options.tenant)
            fresh, told = {}, {}
    similar.write(index.with_films(told, fresh), store, options.tenant)
    return counts


def _similar(options: argparse.Namespace) -> int:
    from medgem_node import part10, similar
    from medgem_node.card import find_card
    from medgem_node.deid.keyring import keys_of
    from medgem_node.detector.embed import Embedder

    config = configured(options)
    card = find_card(config.models, options.model, options.version_of_model)
    embedder = Embedder(card)
    space = similar.Space(card.name, card.version, card.weights_sha256, embedder.dimensions)
    index = similar.read(_store(options, config), options.tenant, space)
    if index is None:
        raise ConfigError(f"tenant {options.tenant} has no index for {card.name}; fill one with `medgem-node index`")
    try:
        instance = part10.decode(options.file.read_bytes())
        part10.check(instance, ("SOPInstanceUID",))
    except OSError as exc:
        raise ConfigError(f"{options.file}: cannot be read ({exc.strerror})") from exc
    case = _case(keys_of(config).node, options.tenant, str(instance.get("SOPInstanceUID") or ""))
    answer = index.nearest(embedder.embed(instance), options.k, but_not=case)
    if options.json:
        say(json.dumps(answer.to_dict(), indent=2))
        return 0
    for neighbour in answer.neighbours:
        say(f"{neighbour.distance:.4f}  {neighbour.label}  {neighbour.case}")
    for label, n in answer.mix.items():
        say(f"{label}: {n} of {len(answer.neighbours)} here, {answer.labels[label]} of {answer.films} in the index")
    return 0


def _store(options: argparse.Namespace, config: Config) -> Store:
    from medgem_node import plug

    root = options.out or config.data / "similar"
    return plug.open_store(root.absolute().as_uri())


def _case(pseudonyms: Pseudonyms, tenant: str, sop_instance_uid: str) -> str:
    """What a film is called in the tenant's index. Raises NotUnderstood for a film without a UID."""
    from medgem_node.errors import NotUnderstood

    if not sop_instance_uid:
        raise NotUnderstood("the instance has no SOP Instance UID")
    return pseudonyms.digest(f"similar:{tenant}", sop_instance_uid)[:32]

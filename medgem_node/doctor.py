"""What is wrong with this installation, in plain words, and how to mend it."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    ImplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from pynetdicom import build_context

from medgem_node import node as running
from medgem_node.card import ModelCard, find_card
from medgem_node.config import Config, read_config
from medgem_node.dimse import scu
from medgem_node.errors import ConfigError, MedgemError, ModelRejected
from medgem_node.ledger.ledger import Ledger
from medgem_node.peer import Peer
from medgem_node.publication import check_profile, full_kind
from medgem_node.site import read_site
from medgem_node.viewer_profile import ViewerProfile

RELEASED = datetime(2026, 11, 22, tzinfo=UTC)
"""No true clock shows an earlier time than the day this version was made."""

SOP_CLASSES = {
    "measurement_report/comprehensive-3d": (Comprehensive3DSRStorage, "report (Comprehensive 3D SR)"),
    "measurement_report/comprehensive": (ComprehensiveSRStorage, "report (Comprehensive SR)"),
    "measurement_report/enhanced": (EnhancedSRStorage, "report (Enhanced SR)"),
    "segmentation/binary": (SegmentationStorage, "segmentation"),
    "segmentation/fractional": (SegmentationStorage, "segmentation"),
    "segmentation/labelmap": ("1.2.840.10008.5.1.4.1.1.66.7", "label map segmentation"),
    "heatmap/true-colour": (SecondaryCaptureImageStorage, "heatmap (Secondary Capture)"),
    "heatmap/always": (SecondaryCaptureImageStorage, "heatmap (Secondary Capture)"),
    "parametric_map/float": (ParametricMapStorage, "parametric map"),
    "parametric_map/volumes": (ParametricMapStorage, "parametric map"),
    "presentation_state/grayscale": (GrayscaleSoftcopyPresentationStateStorage, "presentation state"),
    "key_objects/of-interest": (KeyObjectSelectionDocumentStorage, "key objects"),
}
"""What a peer has to accept for each kind of object, and what we call it."""

_LOSS = {
    "measurement_report": "findings and measurements will not show as such",
    "segmentation": "masks will not show",
    "heatmap": "the picture will not show",
    "parametric_map": "the colour overlay will not show",
    "presentation_state": "outlines will not be drawn on the image",
    "key_objects": "images with findings will not be marked",
}
_SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]  # of everything that we write and send


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: `state` is ok, warning or wrong."""

    subject: str
    state: str
    says: str
    mend: str = ""


def examine(path: Path | None, settings: tuple[str, ...] = (), now: datetime | None = None) -> Iterator[Check]:
    """Every check, in the order in which a new node would meet them."""
    try:
        config = read_config(path, settings)
        running.open_destinations(config)
        for profile in config.used_profiles:
            check_profile(profile)
    except ConfigError as exc:
        yield Check("configuration", "wrong", str(exc), "correct that line; conf/node.toml shows every option")
        return
    yield Check("configuration", "ok", f"{config.source}: {len(config.rules)} rules")
    yield check_clock(config, now or datetime.now(UTC))
    yield check_disk(config, shutil.disk_usage(_existing(config.data)).free)
    yield check_port(config)
    yield from check_models(config)
    for name, url in config.destinations.items():
        if url.startswith("dimse:"):
            yield from check_peer(name, Peer.parse(url), config)
    yield from check_orphans(config)


def check_clock(config: Config, now: datetime) -> Check:
    """Results carry the time: a clock that is off makes them look older than their images."""
    mend = "set it: `timedatectl set-ntp true`, or ask who runs this machine"
    if now < RELEASED:
        return Check("clock", "wrong", f"it shows {now:%Y-%m-%d %H:%M} UTC, before this version was made", mend)
    latest = _latest_arrival(config)
    if latest and latest > now + timedelta(minutes=1):
        return Check("clock", "wrong", f"it was set back: the last image came at {latest:%Y-%m-%d %H:%M} UTC", mend)
    if _is_unsynchronised():
        return Check("clock", "warning", "it is not synchronised with a time server", mend)
    return Check("clock", "ok", f"{now:%Y-%m-%d %H:%M} UTC")


def check_disk(config: Config, free_bytes: int) -> Check:
    """Below receive.minimum_free_mb no image is taken."""
    least = config.receive.minimum_free_mb * 2**20
    says = f"{free_bytes / 2**30:.1f} GiB free in {config.data}"
    mend = "free some space, or move node.data to a larger disk"
    if free_bytes < least:
        return Check("disk", "wrong", f"nearly full: {says}; images are refused (0xA700)", mend)
    if free_bytes < 4 * least:
        return Check("disk", "warning", f"{says}; below {least / 2**30:.1f} GiB images are refused", mend)
    return Check("disk", "ok", says)


def check_port(config: Config) -> Check:
    """Free, or taken by this very node."""
    where = f"port {config.receive.port}"
    try:
        running.check_port(config)
    except ConfigError as exc:
        ours = Peer(config.node.ae_title, "127.0.0.1", config.receive.port)
        try:
            scu.echo(ours, config.node.ae_title, timeout_seconds=3)
        except MedgemError:
            return Check("port", "wrong", str(exc), f"find the program: ss -ltnp 'sport = :{config.receive.port}'")
        return Check("port", "ok", f"{where}: {config.node.ae_title} answers there already")
    return Check("port", "ok", f"{where} is free")


def check_models(config: Config) -> Iterator[Check]:
    """Every model that a rule names: its manifest, its weights, and what it needs to run."""
    for name, version in dict.fromkeys((rule.model, rule.version) for rule in config.rules):
        try:
            card = find_card(config.models, name, version)
            card.checked_weights()
            if card.onnx:
                card.checked_onnx()
        except ModelRejected as exc:
            yield Check(f"model {name}", "wrong", str(exc), "put back the model's folder as it was delivered")
        else:
            yield Check(f"model {name}", "ok", f"{card.version}, weights {card.weights_sha256[:12]} intact")
            yield from check_site(card, config)
    if importlib.util.find_spec("torch") is None:
        mend = "pip install torch==2.13.0 'medgem-node[worker]'"
        yield Check("torch", "wrong", "not installed: no model can run on this machine", mend)


def check_site(card: ModelCard, config: Config) -> Iterator[Check]:
    """The site's own operating points, if it has any: whether they were made with this very manifest."""
    subject = f"site calibration of {card.name}"
    again = f"medgem-node calibrate FOLDER --model {card.name} --write"
    try:
        site = read_site(config.data, card.name, card.version)
    except ModelRejected as exc:
        yield Check(subject, "wrong", str(exc), again)
        return
    if site is not None and not site.fits(card):
        yield Check(subject, "warning", "made with another manifest, and not used; the model's own points are", again)
    elif site is not None:
        points = ", ".join(f"{p.output} from {p.operating_point:g}" for p in site.points)
        yield Check(subject, "ok", f"of {site}: {points}")
    elif others := sorted(p.name for p in (config.data / "site").glob(f"{card.name}-[0-9]*.toml")):
        yield Check(subject, "warning", f"{', '.join(others)} is of another version, and is not used", again)


def check_peer(name: str, peer: Peer, config: Config) -> Iterator[Check]:
    """Whether the PACS answers and knows us, which kinds of result it takes, and whether the viewer profile fits it."""
    subject = f"destination {name}"
    title = peer.calling or config.node.ae_title
    sop_classes = dict.fromkeys(sop_class for sop_class, _ in SOP_CLASSES.values())
    contexts = [build_context(sop_class, _SYNTAXES) for sop_class in sop_classes]
    try:
        accepted = frozenset(abstract for abstract, _ in scu.accepted_contexts(peer, title, contexts, 10))
    except scu.Unreachable as exc:
        mend = f"check that the PACS runs, its host and port in [destinations] {name}, and the firewall between"
        yield Check(subject, "wrong", str(exc), mend)
        return
    except MedgemError as exc:
        mend = f'register AE title "{title}" with this machine\'s address at the PACS, or correct [destinations] {name}'
        yield Check(subject, "wrong", str(exc), mend)
        return
    taken = dict.fromkeys(words for sop_class, words in SOP_CLASSES.values() if sop_class in accepted)
    if not taken:
        mend = "allow storage of these SOP classes for our AE title at the PACS"
        yield Check(subject, "wrong", f"{peer} answers, but accepts none of our results", mend)
        return
    fitting = [p.name for p in config.viewer_profiles.values() if _fits(p, accepted)]
    says = f"{peer} answers, and accepts {', '.join(taken)}; viewer profiles that fit: {', '.join(fitting) or 'none'}"
    yield Check(subject, "ok", says)
    for profile in _profiles_for(name, config):
        yield from check_profile_of_peer(subject, profile, accepted, config)


def check_profile_of_peer(
    subject: str, profile: ViewerProfile, accepted: frozenset[str], config: Config
) -> Iterator[Check]:
    """What of a profile's objects a peer that accepts these SOP classes would refuse, and what it gets instead."""
    refused = _refused(profile, accepted)
    instead = profile.replacements(refused, profile.spares)
    better = _better_profile(profile, accepted, config)
    mend = f'set results.profile = "{better}", which fits' if better else "allow this SOP class at the PACS"
    for kind in (k for k in profile.objects if k in refused):
        loss = _LOSS.get(kind.partition("/")[0], "it will not show")
        then = f"it gets the {_words(instead[kind])} instead" if kind in instead else f"{loss}, and nothing stands in"
        says = f'viewer profile "{profile.name}" sends the {_words(kind)}, which is not accepted: {then}'
        yield Check(subject, "warning", says, mend)


def _profiles_for(destination: str, config: Config) -> list[ViewerProfile]:
    names = [rule.profile for rule in config.rules if destination in rule.send_to]
    found = [config.profile(name) for name in names] or [config.profile()]
    return list({profile.name: profile for profile in found}.values())


def _refused(profile: ViewerProfile, accepted: frozenset[str]) -> frozenset[str]:
    kinds = (*profile.objects, *profile.spares)
    known = {kind: SOP_CLASSES[full] for kind in kinds if (full := full_kind(kind)) in SOP_CLASSES}
    return frozenset(kind for kind, (sop_class, _) in known.items() if sop_class not in accepted)


def _fits(profile: ViewerProfile, accepted: frozenset[str]) -> bool:
    try:
        return not _refused(profile, accepted) & set(profile.objects)
    except ConfigError:  # it names what is not installed, and nobody uses it
        return False


def _better_profile(profile: ViewerProfile, accepted: frozenset[str], config: Config) -> str:
    """The profile that fits and loses nothing of what arrives with this one; of several the one that sends most."""
    refused = _refused(profile, accepted)
    instead = profile.replacements(refused, profile.spares)
    arrives = {k.partition("/")[0] for k in (*profile.objects, *instead.values()) if k not in refused}
    better = [
        other
        for other in config.viewer_profiles.values()
        if _fits(other, accepted) and arrives <= {kind.partition("/")[0] for kind in other.objects}
    ]
    return max(better, key=lambda p: len(p.objects)).name if better and refused & set(profile.objects) else ""


def _words(kind: str) -> str:
    return SOP_CLASSES.get(full_kind(kind), ("", kind))[1]


def check_orphans(config: Config) -> Iterator[Check]:
    """Files that were never acknowledged: a crash came between the disk and the ledger, and the sender sends again."""
    if not (config.data / "ledger.sqlite").exists() and not config.stores.database:
        return
    node = running.open_node(config)
    known = node.ledger.keys()
    orphans = sum(1 for key in node.archive.keys("studies") if key not in known)
    node.ledger.close()
    if orphans:
        mend = "nothing is lost: they were never acknowledged, so their sender sends them again"
        yield Check("archive", "warning", f"{orphans} files that the ledger does not know", mend)


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)


def _latest_arrival(config: Config) -> datetime | None:
    if not (config.data / "ledger.sqlite").exists() and not config.stores.database:
        return None
    ledger = Ledger(config.database_url)
    latest = ledger.latest_arrival()
    ledger.close()
    return latest


def _is_unsynchronised() -> bool:
    if not shutil.which("timedatectl"):
        return False
    command = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    return answer.stdout.strip() == "no"

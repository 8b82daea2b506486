"""Key Object Selection: the images with something found, and what we made of them, for a worklist or a viewer's filter.

The title is (113000, DCM, "Of Interest"); a Document Title Modifier has no place under it (TID 2010), so that it was an
AI that selected, which findings it means and that they are for research stands in the Key Object Description.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import highdicom
from pydicom import Dataset
from pydicom.sr.codedict import codes

from medgem_node import evidence as ev
from medgem_node import picture
from medgem_node.errors import ConfigError
from medgem_node.evidence import Source
from medgem_node.finding import Analysis
from medgem_node.geometry import frames
from medgem_node.header import ascii_

VARIANTS = ("of-interest",)


def create(source: Source, variant: str = VARIANTS[0]) -> KeyObjectWriter:
    """The writer of what the model of `source` answers. Raises ConfigError."""
    if variant not in VARIANTS:
        raise ConfigError(f'key_objects knows no variant "{variant}"; known are {", ".join(VARIANTS)}')
    return KeyObjectWriter(source, variant)


@dataclass(frozen=True, slots=True)
class KeyObjectWriter:
    """One selection, or none where nothing is present: a normal study asks for nobody's attention."""

    source: Source
    variant: str = VARIANTS[0]

    def write(
        self,
        analysis: Analysis,
        originals: Sequence[Dataset],
        made: Sequence[Dataset],
        uid: Callable[[str], str],
    ) -> Sequence[Dataset]:
        """The selection of images with a finding that is not only offered for review, and of every object in `made`."""
        self.source.check(analysis)
        ev.check(analysis, originals)
        present = {f.image for f in analysis.findings if f.is_asserted} if analysis.applicable else set()
        images = [o for o in ev.analysed(analysis, originals) if str(o.SOPInstanceUID) in present]
        if not images:
            return ()
        references = [*map(ev.stand_in, images), *made]
        selection: Dataset = highdicom.ko.KeyObjectSelectionDocument(
            evidence=references,
            content=self._content(analysis, images, references),
            series_instance_uid=uid("ko-series"),
            series_number=ev.SERIES_NUMBER["key_objects"],
            sop_instance_uid=uid("ko"),
            instance_number=1,
            manufacturer=self.source.station.manufacturer,
        )
        ev.finish(selection, images[0], self.source, f"AI key images {self.source.algorithm}")
        return (selection,)

    def _content(
        self, analysis: Analysis, images: Sequence[Dataset], references: Sequence[Dataset]
    ) -> highdicom.ko.KeyObjectSelection:
        content = highdicom.ko.KeyObjectSelection(
            document_title=codes.cid7010.OfInterest,
            referenced_objects=references,
            description=ascii_(self._description(analysis), 1024),
        )
        tree = content[0].ContentSequence
        for k, item in enumerate(ev.observer(self.source)):
            tree.insert(k, item)
        for image in images:
            if frames(image) > 1:
                _name_frames(tree, analysis, str(image.SOPInstanceUID))
        return content

    def _description(self, analysis: Analysis) -> str:
        found = dict.fromkeys(picture.said(f) for f in analysis.findings if f.present)
        earlier = self.source.earlier.reference("ko") if self.source.earlier else None
        replaced = ["Replaces the selection of an earlier revision"] if earlier else []  # the IOD has no other place
        return ". ".join((ev.WARNING, f"Selected by AI {self.source.algorithm}", *found, *replaced))


def _name_frames(tree: Sequence[Dataset], analysis: Analysis, image: str) -> None:
    """Of a multi-frame image, only the frames with a finding."""
    present = sorted({f.frame for f in analysis.findings if f.present and f.image == image})
    for item in tree:
        for reference in item.get("ReferencedSOPSequence", ()):
            if reference.ReferencedSOPInstanceUID == image:
                reference.ReferencedFrameNumber = present

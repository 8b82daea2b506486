from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import pytest
from harness import chest
from harness.chest import as_sent
from pydicom import Dataset

from medgem_node.card import ModelCard
from medgem_node.finding import Analysis
from medgem_node.writers import heatmap, measurement_report, segmentation

Write = Callable[..., dict[str, Dataset]]


@pytest.fixture
def write() -> Write:
    """What the three writers make in their order, read back from bytes: `{"SEG 1": ..., "OT 1": ..., "SR 1": ...}`."""

    def written(
        analysis: Analysis, originals: Sequence[Dataset], at: datetime = chest.AT, card: ModelCard = chest.CARD
    ) -> dict[str, Dataset]:
        evidence = [as_sent(original) for original in originals]
        results = []
        for module in (segmentation, heatmap, measurement_report):
            made = module.create(card, content_datetime=at, station=chest.STATION).write(analysis, evidence, chest.uid)
            evidence.extend(made)
            results.extend(as_sent(m) for m in made)
        return {f"{r.Modality} {r.InstanceNumber}": r for r in results}

    return written

"""A network, a recipe and films so small that a test can train on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medgem_node.detector.network import Outputs
from medgem_node.train.loss import UNKNOWN, Target

NETWORK = """
[network]
size = 64
stem = [8, 8]
widths = [16, 16, 16]
depths = [1, 1, 1]
heads = [2, 2, 2]
window = 4
mlp_ratio = 2.0
drop_path = 0.1
decoder = [8, 8, 8, 8]
masks = ["right-lung", "left-lung", "heart"]
points = ["heart-right", "heart-left", "thorax-right", "thorax-left"]
classes = ["frontal", "rotated", "upside-down", "mirrored", "inverted", "other"]
"""
PLAN = """
seed = 7
cycle_ends = [3, 4]
validation_joins = 3
learning_rate = 1e-3
warmup_steps = 2
weight_decay = 0.05
ema_decay = 0.9
turned_share = 1
loss = { masks = 1.0, points = 0.3, gate = 0.3 }
split = { validation = 0, test = 0 }
[augment]
rotation_degrees = 5.0
scale = 0.1
shift = 0.05
aspect = 0.05
gamma = 0.3
window = 0.1
noise = 0.02
blur = 1.0
"""
RECIPE = (
    PLAN
    + """[[sources]]
name = "drawn"
kind = "contours"
images = "films/*.png"
truth = "contours.json"
share = 2
[[sources]]
name = "lungs"
kind = "lungs"
images = "lungs/*"
truth = "_lungs.png"
share = 1
"""
)
LITE = (
    NETWORK.replace("stem = [8, 8]", "stem = [16, 24]")
    .replace("widths = [16, 16, 16]", "widths = [40, 16, 16]")
    .replace("decoder = [8, 8, 8, 8]", "decoder = [8, 8, 8]")
    + 'trunk = "lite0"\nboxes = ["nodule-or-mass"]\nviews = ["PA", "AP"]\n'
)
LITE_RECIPE = (
    RECIPE.replace("loss = { masks = 1.0,", "loss = { lesions = 1.0, geometry = 0.3, views = 0.1, masks = 1.0,")
    .replace("warmup_steps", "mirror_lesions = 0.5\nsmall_size = 32\nsmall_steps = 2\nstem_rate = 0.3\nwarmup_steps")
    .replace('truth = "_lungs.png"', 'truth = "_lungs.png"\npaste = 1.0\nlesion_kind = "none"\nview = "PA"')
)
CONTOURS = {
    "RL": [[0.15, 0.2], [0.4, 0.2], [0.4, 0.8], [0.15, 0.8]],
    "LL": [[0.6, 0.2], [0.85, 0.2], [0.85, 0.8], [0.6, 0.8]],
    "H": [[0.38, 0.5], [0.7, 0.5], [0.7, 0.8], [0.38, 0.8]],
}


def draw_films(folder: Path) -> None:
    """Four films with contours, one with a lung mask."""
    rng = np.random.default_rng(0)
    for name in ("films", "lungs"):
        (folder / name).mkdir()
    chest = np.full((80, 80), 200.0)
    chest[16:64, 12:32] = chest[16:64, 48:68] = 60
    for n in range(4):
        grey = np.clip(chest + rng.normal(0, 8, chest.shape), 0, 255).astype(np.uint8)
        Image.fromarray(grey).save(folder / f"films/f{n}.png")
    Image.fromarray(chest.astype(np.uint8)).save(folder / "lungs/g.png")
    Image.fromarray((chest < 100).astype(np.uint8) * 255).save(folder / "lungs/g_lungs.png")
    (folder / "contours.json").write_text(json.dumps({f"f{n}": CONTOURS for n in range(4)}))


def write_recipe(folder: Path, network: str = NETWORK, recipe: str = RECIPE) -> Path:
    """The recipe in `folder`, with its manifest beside it."""
    folder.mkdir(exist_ok=True)
    (folder / "model.toml").write_text(network)
    (folder / "train.toml").write_text(recipe)
    return folder / "train.toml"


def made_batch(films: int = 5, mapped: int = 3) -> tuple[Outputs, Target]:
    """Outputs that want a gradient and a truth that is known of some."""
    made = torch.Generator().manual_seed(3)
    shapes = ((mapped, 3, 16, 16), (mapped, 4, 4, 4), (films, 6), (mapped, 5, 4, 4), (films, 2))
    outputs = Outputs(*(torch.randn(shape, generator=made).requires_grad_() for shape in shapes))
    heat = torch.zeros(mapped, 1, 4, 4)
    heat[0, 0, 1, 2] = heat[2, 0, 3, 3] = heat[2, 0, 0, 0] = 1.0
    target = Target(
        gate=torch.tensor([0, 3, UNKNOWN, 5, 1]), views=torch.tensor([UNKNOWN, 1, UNKNOWN, 0, UNKNOWN]),
        masks=(torch.rand(mapped, 3, 16, 16, generator=made) < 0.4).float(),
        masks_known=torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]),
        points=torch.rand(mapped, 4, 4, 4, generator=made),
        points_known=torch.tensor([[0.0, 0.0, 1.0, 1.0], [1.0] * 4, [0.0] * 4]),
        heat=heat, heat_weight=torch.ones(mapped, 1, 4, 4), geometry=torch.rand(mapped, 4, 4, 4, generator=made),
        geometry_known=heat.repeat(1, 2, 1, 1),
    )  # fmt: skip
    return outputs, target

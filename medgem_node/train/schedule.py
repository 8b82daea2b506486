"""How fast the network learns at each step, and when it has learnt enough."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from medgem_node.errors import ConfigError
from medgem_node.train.data import Recipe

_FLOOR = 0.01  # where a cycle's rate ends, as a part of where it starts


def rate(recipe: Recipe, step: int) -> float:
    """A warm-up, then cosines with warm restarts.

    With `cycle_ends` at T_0, T_0 (1 + T_mult), ... and `restart_rate = 1` it is torch's CosineAnnealingWarmRestarts.

    References
    ----------
    Loshchilov and Hutter 2017 (SGDR), arXiv:1608.03983.
    """
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    start = max((end for end in recipe.cycle_ends if end <= step), default=recipe.warmup_steps)
    end = min(end for end in recipe.cycle_ends if end > step)
    peak = recipe.learning_rate * (1.0 if end == recipe.cycle_ends[0] else recipe.restart_rate)
    return peak * (_FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * (step - start) / (end - start))))


@dataclass(frozen=True, slots=True)
class Best:
    """The best value so far of the figure that training is stopped by. Larger is better."""

    value: float = -math.inf
    step: int = 0  # when it was found; 0: not yet
    looked: int = 0  # when a value was last looked at

    def after(self, value: float, step: int) -> Best:
        """With one more value; NaN is never better."""
        return Best(value, step, step) if value > self.value else replace(self, looked=step)

    def is_over(self, patience: int) -> bool:
        """Whether so many steps have brought nothing better."""
        return 0 < patience <= self.looked - self.step


def check_stopping(recipe: Recipe) -> str:
    """A warning, or nothing. Raises ConfigError if the recipe cannot be stopped by its figure."""
    if recipe.patience and not recipe.stop_by:
        raise ConfigError('train.toml: patience needs stop_by, a figure of the validation such as "jsrt@1"')
    if not recipe.stop_by:
        return ""
    if recipe.validation_joins < recipe.steps:
        raise ConfigError(
            "train.toml: stop_by needs films that are never trained on; let validation_joins be the last of cycle_ends"
        )
    longest = max(b - a for a, b in zip((0, *recipe.cycle_ends), recipe.cycle_ends, strict=False))
    if 0 < recipe.patience < longest:
        return f"patience of {recipe.patience} steps may end a cycle of {longest} before its low rates have helped"
    return ""

"""One training on several GPUs: torchrun starts a process for each, a rank.

    torchrun --standalone --nproc-per-node 4 -m medgem_node.cli train RECIPE IMAGES --out DIR

Every rank makes the same batch and learns from its own part of it, films rank, rank + world, rank + 2 world, ...; so
a recipe's batch is the same on any number of GPUs. Each part's loss is divided by what is known in the *whole* batch,
and gradients are added up: the sum is the gradient of one process, but for the order of additions. What is drawn at
random inside the network (drop path, dropout) differs between ranks, as it does between the films of one batch.
Rank 0 alone validates, decides and writes. `--out` is a folder that every rank can read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from medgem_node.detector import runtime
from medgem_node.errors import ConfigError
from medgem_node.train.loss import Target

_PATIENCE = timedelta(hours=1)  # others wait so long while rank 0 validates or saves


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=runtime.device)

    @property
    def writes(self) -> bool:
        """Whether this one reports and writes."""
        return self.rank == 0

    def wrapped(self, network: nn.Module) -> nn.Module:
        """The network, whose gradients are then the mean of all ranks'."""
        return network if self.world == 1 else DistributedDataParallel(network)

    def part(self, images: Tensor, target: Target) -> tuple[Tensor, Target]:
        """This rank's films of a batch. Raises ConfigError if there is none for it."""
        if self.world == 1:
            return images, target
        if len(images) < self.world:
            raise ConfigError(f"train.toml: a batch of {len(images)} films cannot be split over {self.world} ranks")
        mine = [values[self.rank :: self.world] for values in target]
        if self.rank >= len(target.masks):  # the heads want a film: one of which nothing is known teaches nothing
            mine = [m if len(m) else v.new_zeros(1, *v.shape[1:]) for m, v in zip(mine, target, strict=True)]
        return images[self.rank :: self.world].contiguous(memory_format=torch.channels_last), Target(*mine)

    def agreed(self, flag: bool) -> bool:
        """What rank 0 says."""
        if self.world == 1:
            return flag
        said = torch.tensor(int(flag), device=self.device)
        distributed.broadcast(said, 0)
        return bool(said.item())

    def summed(self, values: Tensor) -> Tensor:
        """Added up over the ranks."""
        if self.world > 1:
            distributed.all_reduce(values)
        return values


@contextmanager
def ranks() -> Iterator[Ranks]:
    """As torchrun says, in the variables that it hands to each process; else this process alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size(), device)
    finally:
        distributed.destroy_process_group()

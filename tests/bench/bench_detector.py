"""How long one chest film of a real size takes, from the bytes of its file to the analysis; beside two usual encoders.

    python tests/bench/bench_detector.py MODEL_FOLDER [--runs 5] [--threads 1 2]

The film is pydicom's own CR, brought to 3000 x 2500 pixels of 12 bits, uncompressed and as JPEG 2000. Our model by
torch and, if its manifest has a graph, by ONNX Runtime: reading, network, and all that an analysis says. DenseNet121 at
224 and ViT-B/16 at 512 by torch, with random weights: reading and network only. Each has a process of its own, since
peak memory is a process's; they take turns, and the table tells medians. On a busy machine processor time says more.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROWS, COLUMNS = 3000, 2500
ENCODINGS = ("uncompressed", "jpeg2000")
PEERS = {"DenseNet121 @224": 224, "ViT-B/16 @512": 512}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--films", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        _answer(asked.one, asked.model, asked.films, asked.threads[0])
        return
    with tempfile.TemporaryDirectory() as folder:
        _write_films(Path(folder))
        print("| network | threads | film | seconds | CPU-seconds | CPU, ours by torch = 1 | peak MB | answer |")
        print("|---|---|---|---|---|---|---|---|")
        for threads in asked.threads:
            for row in _compared(asked.model, Path(folder), threads, asked.runs):
                print(f"| {' | '.join(row)} |", flush=True)


def _compared(model: Path, films: Path, threads: int, runs: int) -> list[list[str]]:
    has_graph = "onnx_sha256" in (model / "model.toml").read_text("utf-8")
    names = ["ours, torch", *(["ours, ONNX Runtime"] if has_graph else []), *PEERS]
    command = [sys.executable, __file__, str(model), "--films", str(films), "--threads", str(threads), "--one"]
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": _environment(threads)}
    children: dict[str, Any] = {name: subprocess.Popen([*command, name], **pipe) for name in names}
    for child in children.values():
        child.stdout.readline()  # loaded
    taken: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in range(runs + 1):
        for encoding in ENCODINGS:
            for name, child in children.items():
                child.stdin.write(encoding + "\n")
                child.stdin.flush()
                answer = json.loads(child.stdout.readline())
                if run:  # the first is for warming up
                    taken.setdefault((encoding, name), []).append(answer)
    for child in children.values():
        child.communicate()
    return [_row(name, encoding, threads, taken) for encoding in ENCODINGS for name in names]


def _row(name: str, encoding: str, threads: int, taken: dict[tuple[str, str], list[dict[str, Any]]]) -> list[str]:
    own = taken[encoding, name]
    wall, cpu, reference = (
        statistics.median(answer[key] for answer in answers)
        for key, answers in (("wall", own), ("cpu", own), ("cpu", taken[encoding, "ours, torch"]))
    )
    peak = f"{max(a['peak_mb'] for a in own):.0f}"
    return [name, str(threads), encoding, f"{wall:.2f}", f"{cpu:.2f}", f"{cpu / reference:.2f}", peak, own[-1]["says"]]


def _environment(threads: int) -> dict[str, str]:
    return {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(threads)}


def _write_films(folder: Path) -> None:
    import numpy as np
    from PIL import Image
    from pydicom import uid

    from medgem_node import part10
    from medgem_node.testing import dx_instance, real_film

    grey = real_film().pixel_array.astype(np.float32)
    small = Image.fromarray((grey.max() - grey) / (grey.max() - grey.min()))  # it is MONOCHROME1, ours is not
    pixels = (np.asarray(small.resize((COLUMNS, ROWS), Image.Resampling.BICUBIC)).clip(0, 1) * 4095).astype(np.uint16)
    film = dx_instance(pixels)
    (folder / "uncompressed.dcm").write_bytes(part10.encode(film))
    film.compress(uid.JPEG2000Lossless, encoding_plugin="pylibjpeg")
    (folder / "jpeg2000.dcm").write_bytes(part10.encode(film))


def _answer(name: str, model: Path, films: Path, threads: int) -> None:
    """In a process of its own: a film for each line of stdin, a line of JSON for each."""
    import torch

    torch.set_num_threads(threads)
    look = _ours(model, "onnx" if "ONNX" in name else "torch") if name.startswith("ours") else _peer(name)
    print("loaded", flush=True)
    for line in sys.stdin:
        data = (films / f"{line.strip()}.dcm").read_bytes()
        wall, cpu = time.perf_counter(), time.process_time()
        says = look(data)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"wall": wall, "cpu": cpu, "peak_mb": peak_mb, "says": says}), flush=True)


def _ours(model: Path, backend: str) -> Callable[[bytes], str]:
    from pydicom import dcmread

    from medgem_node.card import read_card
    from medgem_node.detector.detector import create
    from medgem_node.errors import NotAnalysable

    detector = create(read_card(model), backend)

    def look(data: bytes) -> str:
        try:
            analysis = detector.detect([dcmread(io.BytesIO(data))])
        except NotAnalysable as exc:
            return f"refused: {exc.reason}"
        return f"{analysis.parameters['runtime']}; {len(analysis.findings)} findings"

    return look


def _peer(name: str) -> Callable[[bytes], str]:
    import torch
    from pydicom import dcmread

    from medgem_node.detector.preprocess import Preprocessing, to_tensor
    from medgem_node.detector.readers import projection

    size = PEERS[name]
    network = (_densenet121() if size == 224 else _vit_b16(size)).eval().requires_grad_(False)
    parameters = sum(p.numel() for p in network.parameters()) / 1e6

    def look(data: bytes) -> str:
        film = projection.read(dcmread(io.BytesIO(data)))
        tensor, _ = to_tensor(film.pixels, size, film.exposed, Preprocessing(0.5, 99.5, 0.5, 0.25))
        with torch.inference_mode():
            network(torch.from_numpy(tensor)[None].expand(-1, 3, -1, -1))
        return f"{parameters:.2f} M parameters"

    return look


def _densenet121() -> Any:
    """Huang et al. 2017, arXiv:1608.06993: growth 32, blocks of 6, 12, 24, 16; 7.98 M parameters."""
    import torch
    from torch import nn

    class Dense(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.new = nn.Sequential(
                *(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 128, 1, bias=False)),
                *(nn.BatchNorm2d(128), nn.ReLU(), nn.Conv2d(128, 32, 3, padding=1, bias=False)),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat((x, self.new(x)), dim=1)

    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    width = 64
    for depth in (6, 12, 24, 16):
        layers += [Dense(width + 32 * n) for n in range(depth)]
        width += 32 * depth
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        if depth != 16:
            layers += [nn.Conv2d(width, width // 2, 1, bias=False), nn.AvgPool2d(2)]
            width //= 2
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1000))


def _vit_b16(size: int) -> Any:
    """Dosovitskiy et al. 2021, arXiv:2010.11929: 12 layers of 768, 12 heads, patches of 16; 86 M parameters."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(768), nn.LayerNorm(768)
            self.qkv, self.out = nn.Linear(768, 3 * 768), nn.Linear(768, 768)
            self.mlp = nn.Sequential(nn.Linear(768, 3072), nn.GELU(), nn.Linear(3072, 768))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            b, n, c = x.shape
            q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, 12, 64).permute(2, 0, 3, 1, 4).unbind(0)
            x = x + self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))
            return x + self.mlp(self.norm2(x))

    class Vit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 768, 16, 16)
            self.first = nn.Parameter(torch.zeros(1, 1, 768))
            self.places = nn.Parameter(torch.zeros(1, 1 + (size // 16) ** 2, 768))
            self.layers = nn.Sequential(*(Layer() for _ in range(12)))
            self.norm = nn.LayerNorm(768)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens = self.patches(x).flatten(2).transpose(1, 2)
            return self.norm(self.layers(torch.cat((self.first, tokens), dim=1) + self.places))[:, 0]

    return Vit()


if __name__ == "__main__":
    main()

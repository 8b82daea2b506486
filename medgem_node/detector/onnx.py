"""The same network computed by ONNX Runtime, for machines where that is faster or that have no GPU anyway."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from medgem_node.detector.network import Outputs
from medgem_node.errors import ModelRejected

if TYPE_CHECKING:
    from medgem_node.detector.hiera import NetworkConfig

FILE = "model.onnx"


class OnnxNetwork:
    """Called as a `ChestNetwork` is: (B, 1, H, W) in, `Outputs` on the CPU out; `runtime` names what computes it."""

    def __init__(self, graph: bytes, config: NetworkConfig, threads: int = 0) -> None:
        """`threads` 0: as ONNX Runtime sees fit. Raises ModelRejected."""
        try:
            import onnxruntime
        except ImportError as exc:
            raise ModelRejected("ONNX Runtime is not installed: pip install 'medgem-node[onnx]'") from exc
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting costs a busy host its cores
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as exc:  # the runtime's own exceptions share no base class
            raise ModelRejected(f"the ONNX graph cannot be read ({type(exc).__name__})") from exc
        self.config = config
        self.runtime = f"onnxruntime {onnxruntime.__version__} cpu"
        self._names = [output.name for output in self._session.get_outputs()]
        if unknown := sorted(set(self._names) - set(Outputs._fields)):
            raise ModelRejected(f'the ONNX graph has an unknown output "{unknown[0]}"')

    def __call__(self, image: Tensor) -> Outputs:
        """The outputs that the graph has; None for the others."""
        each = [self._session.run(None, {"image": one[None].numpy()}) for one in image]  # the graph is of one image
        made = [torch.from_numpy(np.concatenate(values)) for values in zip(*each, strict=True)]
        found = dict(zip(self._names, made, strict=True))
        return Outputs._make(found.get(name) for name in Outputs._fields)

"""The trained network as a list of operations, and as a float32 ONNX graph.

Knows the vocabulary of a ResNet and no more: Conv2d (+ BatchNorm2d) (+ ReLU), addition (+ ReLU), MaxPool2d, global
average pool, and one Linear at the end. Input of the graph is `pixels`, `[n, side, side, 3]` uint8 RGB; output is
`logits`, `[n, classes]` float32. Normalisation is inside. `lib/onnx/quantize.ts` makes int8 of it.
"""

import operator
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.fx.experimental.optimization import fuse

from network import PIXEL_SCALE, PIXEL_ZERO, normalise

OPSET = 13


class Operation(NamedTuple):
    """One step of the network; `name` is also the name of the tensor it makes."""

    name: str
    kind: str
    inputs: tuple
    module: Optional[nn.Module]
    relu: bool


def operations(model: nn.Module) -> list:
    """The model's forward as a list of operations, batch norms folded into their convolutions."""
    graph = fuse(model.eval())
    modules = dict(graph.named_modules())
    steps, name_of = [], {}
    for node in graph.graph.nodes:
        module = modules.get(node.target) if node.op == "call_module" else None
        target = module.__class__ if module is not None else node.target
        inputs = tuple(name_of[arg.name] for arg in node.args if isinstance(arg, torch.fx.Node) and arg.name in name_of)
        if node.op == "placeholder":
            name_of[node.name] = "pixels"
            continue
        if node.op == "output":
            break
        if target in (nn.ReLU, F.relu, torch.relu):
            if steps[-1].name != inputs[0] or len(node.args[0].users) > 1:
                raise ValueError(f"{node.name}: a ReLU must be all that follows its convolution or addition")
            steps[-1] = steps[-1]._replace(relu=True)
        elif target in (nn.Identity, nn.Dropout, torch.flatten):
            pass
        else:
            kind = {
                nn.Conv2d: "conv",
                nn.Linear: "linear",
                nn.MaxPool2d: "maxpool",
                nn.AdaptiveAvgPool2d: "average",
                "mean": "average",
                operator.add: "add",
                operator.iadd: "add",
            }.get(target)
            if kind is None:
                raise ValueError(f"{node.name}: no ONNX writer for {target}")
            steps.append(Operation(node.name, kind, inputs, module, False))
            name_of[node.name] = node.name
            continue
        name_of[node.name] = inputs[0]
    return steps


def run(steps: list, pixels: torch.Tensor) -> torch.Tensor:
    """Logits of `pixels [n, h, w, 3]` uint8 in float32."""
    values = {"pixels": normalise(pixels)}
    for step in steps:
        x = values[step.inputs[0]]
        if step.kind == "add":
            y = x + values[step.inputs[1]]
        elif step.kind == "average":
            y = x.mean((2, 3))
        else:
            y = step.module(x)
        values[step.name] = F.relu(y) if step.relu else y
    return values[steps[-1].name]


class Writer:
    """Nodes and constants of an ONNX graph under construction."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, kind: str, inputs: list, output: str, **attributes) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def save(self, file: Path, side: int, classes: int) -> None:
        graph = helper.make_graph(
            self.nodes,
            file.stem,
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", side, side, 3])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", classes])],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=7)
        onnx.checker.check_model(model, full_check=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, str(file))


def attributes(module: nn.Module) -> dict:
    """ONNX attributes of a convolution or a pool."""

    def pair(value) -> list:
        return list(value) if isinstance(value, tuple) else [value, value]

    out = {"kernel_shape": pair(module.kernel_size), "strides": pair(module.stride), "pads": pair(module.padding) * 2}
    return {**out, "group": module.groups} if isinstance(module, nn.Conv2d) else out


def write_float(steps: list, file: Path, side: int) -> None:
    """The float32 graph: what becomes int8, and what that is compared with."""
    w = Writer()
    w.node("Cast", ["pixels"], "pixels_float", to=TensorProto.FLOAT)
    w.node("Sub", ["pixels_float", w.constant("pixel_zero", np.float32(PIXEL_ZERO))], "pixels_centred")
    w.node("Mul", ["pixels_centred", w.constant("pixel_scale", np.float32(PIXEL_SCALE))], "pixels_normalised")
    tensor = {"pixels": w.node("Transpose", ["pixels_normalised"], "pixels_nchw", perm=[0, 3, 1, 2])}
    for step in steps:
        inputs = [tensor[name] for name in step.inputs]
        last = step is steps[-1]
        name = "logits" if last else f"{step.name}_sum" if step.relu else step.name
        if step.kind in ("conv", "linear"):
            for part in ("weight", "bias"):
                inputs.append(w.constant(f"{step.name}_{part}", getattr(step.module, part).detach().numpy()))
        if step.kind == "conv":
            w.node("Conv", inputs, name, **attributes(step.module))
        elif step.kind == "maxpool":
            w.node("MaxPool", inputs, name, **attributes(step.module))
        elif step.kind == "add":
            w.node("Add", inputs, name)
        elif step.kind == "average":
            w.node("Flatten", [w.node("GlobalAveragePool", inputs, f"{name}_pooled")], name)
        else:
            w.node("Gemm", inputs, name, transB=1)
        tensor[step.name] = w.node("Relu", [name], step.name) if step.relu else name
    w.save(file, side, steps[-1].module.out_features)

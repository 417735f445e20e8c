"""Writes a trained convolutional classifier as ONNX, in float32 or quantised to int8 (QDQ).

Knows the vocabulary of a ResNet and no more: Conv2d (+ BatchNorm2d) (+ ReLU), addition (+ ReLU), MaxPool2d, global
average pool, and one Linear at the end. Input of the graph is `pixels`, `[n, side, side, 3]` uint8 RGB; output is
`logits`, `[n, classes]` float32. Normalisation is inside.

The int8 graph is QuantizeLinear/DequantizeLinear around float operators, as in "Integer Quantization for Deep
Learning Inference" (Wu et al. 2020, https://arxiv.org/abs/2004.09602); onnxruntime fuses it into integer operators.
- Weights: symmetric int8, one scale for each output channel.
- Activations: uint8, one scale a tensor, from calibration. After a ReLU the zero point is 0, so that saturation does
  the ReLU's work and no ReLU is left in the graph.
- Biases: int32 at the product of the input's and the weight's scale.
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

# Per-axis DequantizeLinear begins with 13.
OPSET = 13
# Weights use 7 of the 8 bits: on x86 without VNNI the kernels add two products in 16 bits, and
# 2 · 255 · 64 still fits where 2 · 255 · 127 saturates silently.
WEIGHT_LIMIT = 63
SAMPLES = 1 << 20


class Operation(NamedTuple):
    """One step of the network; `name` is also the name of the tensor it makes."""

    name: str
    kind: str
    inputs: tuple
    module: Optional[nn.Module]
    relu: bool


class Range(NamedTuple):
    """real = scale · (uint8 - zero)"""

    scale: float
    zero: int


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


def run(steps: list, pixels: torch.Tensor, observe=lambda name, value: None) -> torch.Tensor:
    """Logits of `pixels [n, h, w, 3]` uint8 in float32; `observe` sees every tensor on the way."""
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
        observe(step.name, values[step.name])
    return values[steps[-1].name]


def calibrate(steps: list, pixels: np.ndarray, seed: int, batch: int = 16) -> dict:
    """Range of every tensor over the photos `[n, h, w, 3]` uint8: the one with the least squared error."""
    kept = {step.name: [] for step in steps}
    rng = torch.Generator().manual_seed(seed)
    share = SAMPLES * batch // len(pixels)

    def observe(name: str, value: torch.Tensor) -> None:
        flat = value.flatten()
        kept[name].append(flat if len(flat) <= share else flat[torch.randint(len(flat), (share,), generator=rng)])

    with torch.inference_mode():
        for i in range(0, len(pixels), batch):
            run(steps, torch.from_numpy(pixels[i : i + batch]), observe)
        ranges = {"pixels": Range(PIXEL_SCALE, PIXEL_ZERO)}
        for step in steps:
            # A maximum of quantised values is one of them: the pool keeps its input's range.
            same = step.kind == "maxpool"
            ranges[step.name] = ranges[step.inputs[0]] if same else best_range(torch.cat(kept[step.name]))
    return ranges


def best_range(values: torch.Tensor) -> Range:
    """Tries to clip the extremes ever more; what clipping loses, the finer steps win back, up to a point."""
    low, high = min(0.0, values.min().item()), max(0.0, values.max().item())
    best, least = None, float("inf")
    for keep in np.linspace(1, 0.3, 71):
        scale = max((high - low) * keep / 255, 1e-9)
        zero = round(-low * keep / scale)
        error = (torch.clamp(torch.round(values / scale) + zero, 0, 255).sub_(zero).mul_(scale) - values).pow_(2).sum().item()
        if error < least:
            best, least = Range(scale, zero), error
    return best


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
    """The float32 graph: what the int8 graph is compared with."""
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


def write_int8(steps: list, ranges: dict, file: Path, side: int) -> None:
    """The int8 graph. The last layer's weights are int8 too; its logits stay float32."""
    w = Writer()

    def parameters(name: str, scale, zero: np.ndarray) -> list:
        return [w.constant(f"{name}_scale", np.asarray(scale, np.float32)), w.constant(f"{name}_zero", zero)]

    def dequantised(name: str, value: np.ndarray, scale: np.ndarray) -> str:
        zero = np.zeros(len(scale), value.dtype)
        return w.node("DequantizeLinear", [w.constant(f"{name}_q", value), *parameters(name, scale, zero)], name, axis=0)

    def activation(name: str) -> list:
        return parameters(name, ranges[name].scale, np.uint8(ranges[name].zero))

    w.node("Transpose", ["pixels"], "pixels_nchw", perm=[0, 3, 1, 2])
    tensor = {"pixels": w.node("DequantizeLinear", ["pixels_nchw", *activation("pixels")], "pixels_normalised")}
    for step in steps:
        inputs = [tensor[name] for name in step.inputs]
        if step.kind in ("conv", "linear"):
            weight, bias = (getattr(step.module, part).detach().numpy() for part in ("weight", "bias"))
            incoming = ranges[step.inputs[0]].scale
            # A channel of next to no weights still has room for its bias.
            scale = np.maximum(
                np.abs(weight.reshape(len(weight), -1)).max(1) / WEIGHT_LIMIT, np.abs(bias) / incoming / 2**30 + 1e-12
            )
            rounded = np.round(weight / scale.reshape(-1, *[1] * (weight.ndim - 1)))
            inputs.append(dequantised(f"{step.name}_weight", rounded.astype(np.int8), scale))
            rounded = np.round(bias / (scale * incoming))
            inputs.append(dequantised(f"{step.name}_bias", rounded.astype(np.int32), scale * incoming))
        if step.kind == "linear":
            w.node("Gemm", inputs, "logits", transB=1)
            continue
        name = f"{step.name}_real"
        if step.kind == "conv":
            w.node("Conv", inputs, name, **attributes(step.module))
        elif step.kind == "maxpool":
            w.node("MaxPool", inputs, name, **attributes(step.module))
        elif step.kind == "add":
            w.node("Add", inputs, name)
        else:
            w.node("GlobalAveragePool", inputs, name)
        q = activation(step.name)
        w.node("QuantizeLinear", [name, *q], f"{step.name}_q")
        if step.kind == "average":
            w.node("Flatten", [f"{step.name}_q"], f"{step.name}_flat")
            tensor[step.name] = w.node("DequantizeLinear", [f"{step.name}_flat", *q], step.name)
        else:
            tensor[step.name] = w.node("DequantizeLinear", [f"{step.name}_q", *q], step.name)
    w.save(file, side, steps[-1].module.out_features)

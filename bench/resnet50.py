"""Writes a ResNet-50 with random weights as a model of the server: its answers mean nothing, its time does.

    python3 bench/resnet50.py --out build/models/resnet50-random/1 [--int8]
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torchvision

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))
import quantize  # noqa: E402
from network import normalise  # noqa: E402

SIDE, CLASSES, SEED = 224, 1000, 1


def photos(count: int) -> np.ndarray:
    """Smooth random colours, `[count, 224, 224, 3]` uint8: like photos, most of their energy is in low frequencies."""
    rng = np.random.default_rng(SEED)
    coarse = torch.from_numpy(rng.uniform(0, 255, (count, 3, 7, 7)).astype(np.float32))
    fine = torch.from_numpy(rng.normal(0, 12, (count, 3, SIDE, SIDE)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic")
    return (smooth + fine).clamp(0, 255).permute(0, 2, 3, 1).contiguous().to(torch.uint8).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="version folder; its parent's name is the model's")
    parser.add_argument("--int8", action="store_true", help="quantised instead of float32")
    args = parser.parse_args()
    torch.manual_seed(SEED)

    network = torchvision.models.resnet50(weights=None, num_classes=CLASSES)
    seen = photos(16)
    # Statistics of real activations, so that they neither vanish nor saturate: integer kernels skip no work for zeros,
    # but float ones slow down on denormal numbers.
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.train()(normalise(torch.from_numpy(seen)))
    steps = quantize.operations(network)

    file = args.out / "model.onnx"
    if args.int8:
        quantize.write_int8(steps, quantize.calibrate(steps, seen, SEED), file, SIDE)
    else:
        quantize.write_float(steps, file, SIDE)
    content = file.read_bytes()
    manifest = {
        "manifest": 2,
        "name": args.out.resolve().parent.name,
        "version": int(args.out.name),
        "format": "onnx",
        "files": [
            {"path": file.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()},
        ],
        "inputs": [{"name": "pixels", "dtype": "uint8", "shape": [SIDE, SIDE, 3]}],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": [CLASSES]}],
        "maxBatch": 64,
        "kind": {"name": "image"},
        "task": {
            "name": "classification",
            "output": "logits",
            "activation": "softmax",
            "labels": [f"class-{i}" for i in range(CLASSES)],
            # Where ImageNet has its cats and dogs.
            "groups": {"cat": list(range(281, 286)), "dog": list(range(151, 269))},
        },
        "licence": "none needed: random numbers",
        "source": "bench/resnet50.py",
    }
    (args.out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    print(f"{file}: {len(content)} bytes")


if __name__ == "__main__":
    main()

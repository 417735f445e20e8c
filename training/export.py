"""Writes the trained network into --work, as float32 ONNX, with the photos that it is quantised by (`calibration.bin`).

--work also gets what the evaluation needs: the held-out photos and `export.json`.

    python3 training/export.py --data DIR --work DIR
"""

import argparse
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import data
import graph
from network import ResNet
from train import EVALUATION_SIDE, WIDTH

# The fraction that train.py holds out.
HELD_OUT = 0.05
CALIBRATION = 1024


def shrink(pixels: np.ndarray, side: int) -> np.ndarray:
    """A whole training photo at the side that serving uses."""
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.BILINEAR))


def sharpen(steps: list, pixels: np.ndarray, label: np.ndarray) -> float:
    """Scales the logits so that probabilities mean what they say; returns the factor.

    Trained towards soft labels, the network is right far more often than it claims. One factor for all logits repairs
    that without changing their order ("temperature scaling", Guo et al. 2017, https://arxiv.org/abs/1706.04599): the
    one of the least cross-entropy with the hard labels. It goes into the last layer's weights.
    """
    with torch.inference_mode():
        logits = torch.cat([graph.run(steps, torch.from_numpy(part)) for part in np.array_split(pixels, len(pixels) // 16)])
        factors = np.geomspace(0.5, 8, 200)
        losses = [F.cross_entropy(logits * factor, torch.from_numpy(label)).item() for factor in factors]
    factor = float(factors[np.argmin(losses)])
    with torch.no_grad():
        for parameter in steps[-1].module.parameters():
            parameter.mul_(factor)
    return factor


def write_photos(files: set, folder: Path, out: Path) -> None:
    """The encoded photos themselves: the evaluation sends them through serving's own decoder."""
    for name in data.CLASSES:
        (out / name).mkdir(parents=True, exist_ok=True)
        with tarfile.open(folder / f"{name}.tar") as tar:
            for member in tar:
                if member.name in files:
                    (out / member.name).write_bytes(tar.extractfile(member).read())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with cat.tar, dog.tar, other.tar, index.tsv")
    parser.add_argument("--work", type=Path, required=True, help="folder of the training run")
    args = parser.parse_args()

    state = torch.load(args.work / "checkpoint.pt", map_location="cpu")
    network = ResNet(WIDTH, len(data.CLASSES))
    network.load_state_dict(state["average"])
    steps = graph.operations(network)
    seed, side = state["settings"]["seed"], EVALUATION_SIDE

    photos = data.load(args.data, state["settings"]["limit"])
    train, held = data.split(photos, HELD_OUT, seed)
    write_photos({photos.file[i] for i in held}, args.data, args.work / "held-out")

    chosen = np.random.default_rng(seed).permutation(train)[:CALIBRATION]
    print(f"scaling by, and keeping for calibration, {len(chosen)} training photos at {side} px", flush=True)
    pixels = np.stack([shrink(photos.pixels[i], side) for i in chosen])
    factor = sharpen(steps, pixels, photos.label[chosen])
    file = args.work / "float32.onnx"
    graph.write_float(steps, file, side)
    pixels.tofile(args.work / "calibration.bin")
    report = {
        "epoch": state["epoch"],
        "seed": seed,
        "schedule": state["settings"]["schedule"],
        "side": side,
        "labels": data.CLASSES,
        "parameters": sum(p.numel() for p in network.parameters()),
        "calibration": len(chosen),
        "sharpening": factor,
        "photos": Counter(f"{photos.source[i]}/{data.CLASSES[photos.label[i]]}" for i in range(len(photos.label))),
        "heldOut": [{"file": photos.file[i], "label": int(photos.label[i]), "source": photos.source[i]} for i in held],
    }
    (args.work / "export.json").write_text(json.dumps(report))
    print(f"{file}: {file.stat().st_size} bytes, after epoch {state['epoch']}", flush=True)


if __name__ == "__main__":
    main()

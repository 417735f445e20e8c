"""Trains the example of a TensorFlow model, in Keras, and writes it with its manifest and card as a layers model of
TensorFlow.js: which colour is most of a photo? Its photos are drawn, so nothing has to be downloaded.

    $(scripts/venv.sh tensorflow)/bin/python training/colours/make.py [examples/models/colours/1]
"""

import colorsys
import hashlib
import json
import os
import shutil
import sys
import types
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # TensorFlow.js reads Keras 2.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
# The converter imports what only its other formats need.
for name in ("tensorflow_decision_forests", "tensorflow_hub", "jax", "jax.experimental", "jax.experimental.jax2tf"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["jax"].experimental = sys.modules["jax.experimental"]
sys.modules["jax.experimental"].jax2tf = sys.modules["jax.experimental.jax2tf"]

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tensorflowjs.converters import save_keras_model

SEED = 1
SIDE = 32
# Hue in degrees, from and to.
HUES = {"red": (-15, 15), "orange": (20, 40), "yellow": (48, 66), "green": (80, 160), "blue": (190, 255), "purple": (265, 310)}
LABELS = [*HUES, "grey"]
TRAINED, HELD_OUT = 6000, 1500


def draw(label: str, rng: np.random.Generator) -> np.ndarray:
    """A photo of which more than half has the label's colour, in light and shade; the rest is another colour's."""

    def colour(of: str) -> np.ndarray:
        if of == "grey":
            hue, saturation = rng.uniform(0, 1), rng.uniform(0, 0.12)
        else:
            hue, saturation = rng.uniform(*HUES[of]) / 360 % 1, rng.uniform(0.5, 1)
        return np.array(colorsys.hsv_to_rgb(hue, saturation, rng.uniform(0.35, 1)))

    pixels = np.broadcast_to(colour(label), (SIDE, SIDE, 3)).copy()
    others = [other for other in LABELS if other != label]
    width = rng.integers(0, SIDE // 2)
    pixels[:, :width] = colour(others[rng.integers(len(others))])
    if rng.random() < 0.5:
        pixels = pixels.transpose(1, 0, 2)
    light = np.linspace(rng.uniform(0.7, 1), 1, SIDE)[:, None, None]
    noisy = pixels * light + rng.normal(0, 0.03, pixels.shape)
    return (255 * noisy.clip(0, 1)).round().astype(np.uint8)


def photos(count: int, rng: np.random.Generator) -> tuple:
    labels = rng.integers(len(LABELS), size=count)
    return np.stack([draw(LABELS[label], rng) for label in labels]), labels


def main() -> None:
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "examples/models/colours/1")
    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    rng = np.random.default_rng(SEED)
    (images, labels), (held, truth) = photos(TRAINED, rng), photos(HELD_OUT, rng)

    model = keras.Sequential(
        [
            keras.layers.InputLayer((SIDE, SIDE, 3), name="pixels"),
            # Pixel by pixel: which colour is it? Then: of which are there most?
            keras.layers.Conv2D(24, 1, activation="relu", name="hidden"),
            keras.layers.Conv2D(len(LABELS), 1, activation="softmax", name="each"),
            keras.layers.GlobalAveragePooling2D(name="share"),
            keras.layers.Dense(len(LABELS), activation="softmax", name="colour"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(images / 255.0, labels, batch_size=64, epochs=30, verbose=2)
    right = float((model.predict(held / 255.0, verbose=0).argmax(1) == truth).mean())

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    save_keras_model(model, str(out))
    golden = held[0]
    (out / "golden.bin").write_bytes(golden.tobytes())
    answer = model.predict(golden[None] / 255.0, verbose=0)[0]

    def described(path: str) -> dict:
        content = (out / path).read_bytes()
        return {"path": path, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    pixels = {"dtype": "uint8", "shape": [SIDE, SIDE, 3], "data": {"file": "golden.bin"}}
    manifest = {
        "$schema": "../../../../models/manifest.schema.json",
        "manifest": 2,
        "name": out.parent.name,
        "version": int(out.name),
        "format": "tfjs",
        "files": [described(path) for path in ("model.json", "group1-shard1of1.bin", "golden.bin")],
        "inputs": [{"name": "pixels", "dtype": "float32", "shape": [SIDE, SIDE, 3]}],
        "outputs": [{"name": "colour", "dtype": "float32", "shape": [len(LABELS)]}],
        "maxBatch": 64,
        "kind": {"name": "image", "normalisation": {"mean": [0, 0, 0], "std": [255, 255, 255]}},
        "task": {
            "name": "classification",
            "output": "colour",
            "activation": "none",
            "labels": LABELS,
            "groups": {label: [i] for i, label in enumerate(LABELS)},
        },
        "golden": [
            {
                "inputs": {"pixels": pixels},
                "outputs": {"colour": {"dtype": "float32", "shape": [len(LABELS)], "data": [float(p) for p in answer]}},
                "tolerance": 1e-4,
            }
        ],
        "licence": "MIT",
        "source": "trained from scratch by training/colours/make.py",
        "accuracy": {"drawn": round(right, 4)},
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    (out / "MODEL_CARD.md").write_text(card(out, right, model.count_params()))
    print(f"{out}: {right:.4f} of {HELD_OUT} held-out photos right")


def card(out: Path, right: float, parameters: int) -> str:
    ranges = ", ".join(f"{label} {low % 360}–{high}°" for label, (low, high) in HUES.items())
    return f"""# {out.parent.name}, version {out.name}

Says which colour most of a photo has. An example of how a TensorFlow model is added, and a toy: written by
`training/colours/make.py`; change that, not this.

## Model

{parameters} weights in Keras ({SIDE}×{SIDE} pixels, each looked at alone, then the shares of colours weighed), as a layers model of
TensorFlow.js. Made with TensorFlow {tf.__version__} and tensorflowjs.

## Accuracy

{100 * right:.2f} % of {HELD_OUT} drawn photos that it was not trained on. **It has never seen a real photo**: those have more than two
colours, and colours between its own, on which it was never asked to decide.

## Data

{TRAINED} drawn photos: one colour with light, shade and noise, and another colour on less than half. Hues: {ranges}; grey below
12 % saturation. Nobody's photos, so no terms but the licence of this repository.
"""


if __name__ == "__main__":
    main()

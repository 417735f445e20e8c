"""The pets photos in memory, the held-out split and the augmentation."""

import csv
import io
import tarfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

CLASSES = ("cat", "dog", "other")
SIDE = 160
# A serving pipeline may shrink a photo with another kernel than the one that made the training set:
# the network sees several.
KERNELS = (Image.BILINEAR, Image.BICUBIC, Image.LANCZOS)


class Photos(NamedTuple):
    """`pixels [n, 160, 160, 3] uint8`, `label [n] int64`, `soft [n, 3] float32`, `file` and `source [n]`."""

    pixels: np.ndarray
    label: np.ndarray
    soft: np.ndarray
    file: list
    source: list


def load(folder: Path, limit: int = 0) -> Photos:
    """Decodes the three tar files. `limit` > 0 keeps every k-th photo so that about `limit` remain (for trials)."""
    with open(folder / "index.tsv", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    if limit:
        rows = rows[:: max(1, len(rows) // limit)]
    position = {row["file"]: i for i, row in enumerate(rows)}
    pixels = np.zeros((len(rows), SIDE, SIDE, 3), np.uint8)

    def decode(name: str, data: bytes) -> None:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        if image.size != (SIDE, SIDE):
            image = image.resize((SIDE, SIDE), Image.BILINEAR)
        pixels[position[name]] = np.asarray(image)

    found = 0
    with ThreadPoolExecutor(4) as pool:
        for name in CLASSES:
            jobs = []
            with tarfile.open(folder / f"{name}.tar") as tar:
                for member in tar:
                    if member.name in position:
                        jobs.append(pool.submit(decode, member.name, tar.extractfile(member).read()))
            for job in jobs:
                job.result()
            found += len(jobs)
    if found != len(rows):
        raise ValueError(f"index.tsv names {len(rows)} photos but the tar files hold {found} of them")
    return Photos(
        pixels,
        np.array([CLASSES.index(row["class"]) for row in rows]),
        np.array([[float(row[f"soft_{c}"]) for c in CLASSES] for row in rows], np.float32),
        [row["file"] for row in rows],
        [row["source"] for row in rows],
    )


def split(photos: Photos, fraction: float, seed: int) -> tuple:
    """Indices (train, held-out): `fraction` of every (source, class) group is held out, at least one photo of it."""
    groups = defaultdict(list)
    for i, key in enumerate(zip(photos.source, photos.label)):
        groups[key].append(i)
    rng = np.random.default_rng(seed)
    held = []
    for key in sorted(groups):
        members = rng.permutation(groups[key])
        held.extend(members[: max(1, round(fraction * len(members)))] if len(members) > 1 else [])
    held = np.array(sorted(held))
    return np.setdiff1d(np.arange(len(photos.label)), held), held


def crop(pixels: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """Random resized crop (area 0.35–1, aspect 3/4–4/3) and horizontal flip: one photo → `[side, side, 3] uint8`."""
    area = SIDE * SIDE * rng.uniform(0.35, 1.0)
    aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    w, h = min(SIDE, np.sqrt(area * aspect)), min(SIDE, np.sqrt(area / aspect))
    x, y = rng.uniform(0, SIDE - w), rng.uniform(0, SIDE - h)
    kernel = KERNELS[rng.integers(len(KERNELS))]
    out = np.asarray(Image.fromarray(pixels).resize((side, side), kernel, box=(x, y, x + w, y + h)))
    return out[:, ::-1] if rng.random() < 0.5 else out


def jitter(x: torch.Tensor, rng: np.random.Generator, strength: float = 0.3) -> torch.Tensor:
    """Brightness, contrast and saturation of each photo by a factor in 1 ± strength; `[n, 3, h, w]`, 0 is mid-grey."""

    def factor() -> torch.Tensor:
        return torch.from_numpy(rng.uniform(1 - strength, 1 + strength, (len(x), 1, 1, 1)).astype(np.float32))

    x = (x + 2).mul_(factor()).sub_(2)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = x.sub_(mean).mul_(factor()).add_(mean)
    grey = x.mean(1, keepdim=True)
    return (x - grey).mul_(factor()).add_(grey).clamp_(-2, 2)

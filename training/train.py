"""Trains the pets ResNet from scratch. Deterministic by seed; stops and resumes at epoch boundaries.

    python3 training/train.py --data DIR --work DIR
"""

import argparse
import math
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Freed activations stay in the process: 20 % faster than mapping and zeroing the same memory at every step.
# glibc reads these at start-up, so the process starts itself again with them.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(8 << 30), "MALLOC_TRIM_THRESHOLD_": str(16 << 30), "MALLOC_TOP_PAD_": str(256 << 20)}
if __name__ == "__main__" and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **MALLOC})

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

import data  # noqa: E402
from network import ResNet, normalise  # noqa: E402

# (epochs, side in pixels): cheap small images first, the size that counts last.
SCHEDULE = ((14, 80), (11, 112), (6, 128))
EVALUATION_SIDE = 144
WIDTH, BATCH, PEAK_RATE, WEIGHT_DECAY = 48, 96, 0.15, 5e-4
HARD_SHARE, SMOOTHING, EMA_STEPS = 0.4, 0.05, 700


def learning_rate(step: int, steps: int) -> float:
    """One-cycle: linear warm-up over 15 % of the steps, then a half cosine to zero."""
    warm = 0.15 * steps
    if step < warm:
        return PEAK_RATE * (0.04 + 0.96 * step / warm)
    return PEAK_RATE * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


def sides(schedule) -> list:
    return [side for epochs, side in schedule for _ in range(epochs)]


def evaluate(model: ResNet, photos: data.Photos, indices: np.ndarray, side: int) -> np.ndarray:
    """Class probabilities `[n, 3]` of the photos, shrunk whole to `side`."""
    model.eval()
    out = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for part in np.array_split(indices, max(1, len(indices) // BATCH)):
            small = [np.asarray(data.Image.fromarray(photos.pixels[i]).resize((side, side), data.Image.BILINEAR)) for i in part]
            out.append(model(normalise(torch.from_numpy(np.stack(small)))).float().softmax(1).numpy())
    return np.concatenate(out)


def accuracy(probability: np.ndarray, label: np.ndarray) -> dict:
    """Three-way accuracy, and that of each yes/no question (yes: the class has the largest probability)."""
    guess = probability.argmax(1)
    return {
        "all": float((guess == label).mean()),
        **{c: float(((guess == k) == (label == k)).mean()) for k, c in enumerate(data.CLASSES[:2])},
    }


def batches(photos: data.Photos, train: np.ndarray, side: int, seed: int, pool: ThreadPoolExecutor):
    """Yields (`[n, 3, side, side]` float, targets `[n, 3]`), one batch ahead of the consumer."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(train)

    def prepare(part: np.ndarray, seed: int):
        rng = np.random.default_rng(seed)
        pixels = np.stack([data.crop(photos.pixels[i], side, rng) for i in part])
        hard = np.eye(3, dtype=np.float32)[photos.label[part]] * (1 - SMOOTHING) + SMOOTHING / 3
        target = HARD_SHARE * hard + (1 - HARD_SHARE) * photos.soft[part]
        return data.jitter(normalise(torch.from_numpy(pixels)), rng), torch.from_numpy(target)

    parts = [order[i : i + BATCH] for i in range(0, len(order) - BATCH + 1, BATCH)]
    seeds = rng.integers(2**62, size=len(parts))
    ahead = [pool.submit(prepare, part, s) for part, s in zip(parts[:2], seeds)]
    for i in range(len(parts)):
        ready = ahead.pop(0).result()
        if i + 2 < len(parts):
            ahead.append(pool.submit(prepare, parts[i + 2], seeds[i + 2]))
        yield ready


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with cat.tar, dog.tar, other.tar, index.tsv")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints; a run found there is resumed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int, default=0, help="train on about this many photos only (a trial)")
    parser.add_argument("--schedule", default=",".join(f"{e}x{s}" for e, s in SCHEDULE), help="epochs x side, …")
    args = parser.parse_args()
    schedule = [tuple(map(int, part.split("x"))) for part in args.schedule.split(",")]
    args.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    torch.set_num_threads(len(os.sched_getaffinity(0)))

    photos = data.load(args.data, args.limit)
    train, held = data.split(photos, 0.05, args.seed)
    print(f"{len(train)} photos to train on, {len(held)} held out; {torch.get_num_threads()} threads", flush=True)

    model = ResNet(WIDTH, len(data.CLASSES)).to(memory_format=torch.channels_last)
    average = ResNet(WIDTH, len(data.CLASSES)).to(memory_format=torch.channels_last)
    average.load_state_dict(model.state_dict())
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain}], PEAK_RATE, momentum=0.9, nesterov=True
    )

    plan = sides(schedule)
    per_epoch = len(train) // BATCH
    first, checkpoint = 0, args.work / "checkpoint.pt"
    settings = {"seed": args.seed, "limit": args.limit, "schedule": schedule}
    if checkpoint.exists():
        state = torch.load(checkpoint)
        if state["settings"] != settings:
            raise SystemExit(f"{checkpoint} is of another run ({state['settings']}); use an empty --work folder")
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["epoch"]
        print(f"resumed after epoch {first}", flush=True)

    # Work left is counted in pixels: a step's time goes with the square of the side.
    total = sum(side**2 for side in plan[first:]) * per_epoch
    done, began, spoken = 0, time.time(), time.time()
    with ThreadPoolExecutor(1) as pool:
        for epoch in range(first, len(plan)):
            side, losses, epoch_began = plan[epoch], 0.0, time.time()
            model.train()
            for i, (x, target) in enumerate(batches(photos, train, side, args.seed * 1000 + epoch, pool)):
                step = epoch * per_epoch + i
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(step, len(plan) * per_epoch)
                with torch.autocast("cpu", torch.bfloat16):
                    logits = model(x)
                loss = F.cross_entropy(logits.float(), target)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                keep = min(1 - 1 / EMA_STEPS, (step + 1) / (step + 10))
                with torch.no_grad():
                    mine, others = average.state_dict(), model.state_dict()
                    for key, value in mine.items():
                        if value.is_floating_point():
                            value.lerp_(others[key], 1 - keep)
                losses += loss.item()
                done += side**2
                if time.time() - spoken > 30:
                    spoken = time.time()
                    rate = (i + 1) * BATCH / (spoken - epoch_began)
                    left = (spoken - began) / done * (total - done) / 60
                    print(
                        f"epoch {epoch + 1}/{len(plan)} at {side} px, {100 * (i + 1) / per_epoch:.0f} %, "
                        f"loss {losses / (i + 1):.4f}, {rate:.0f} photos/s, {left:.0f} min left",
                        flush=True,
                    )
            seen = accuracy(evaluate(average, photos, held, EVALUATION_SIDE), photos.label[held])
            print(f"epoch {epoch + 1}/{len(plan)}: loss {losses / per_epoch:.4f}, held out {seen}", flush=True)
            state = {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "epoch": epoch + 1,
                "settings": settings,
            }
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
    print(f"done in {(time.time() - began) / 60:.0f} min: {checkpoint}", flush=True)


if __name__ == "__main__":
    main()

"""Draws the golden image and writes the pixels that training makes of it.

    python3 training/golden.py --out test/fixtures/golden

A test holds serving to it: if the two sides' resizing ever drifts apart, accuracy would fall without an error.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from train import EVALUATION_SIDE

WIDTH, HEIGHT = 320, 240


def draw() -> Image.Image:
    """Gradients, edges at every angle, fine stripes: what tells one resize kernel from another."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([255 * x / WIDTH, 255 * y / HEIGHT, 255 - 127 * (x + y) / (WIDTH + HEIGHT) * 2], 2)
    image = Image.fromarray(pixels.round().astype(np.uint8))
    pen = ImageDraw.Draw(image)
    pen.ellipse((60, 30, 180, 150), fill=(230, 120, 40), outline=(0, 0, 0), width=3)
    pen.polygon([(200, 40), (290, 90), (215, 200)], fill=(30, 60, 200))
    pen.rectangle((70, 165, 150, 225), fill=(250, 250, 250))
    for i in range(0, 80, 5):
        pen.line((70 + i, 165, 70 + i, 225), fill=(20, 20, 20), width=1 + i // 30)
    for i in range(12):
        pen.line((160, 215, 160 + 12 * i, 120), fill=(255, 255, 0), width=1)
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    image = draw()
    image.save(args.out / "image.png", optimize=True)
    border = (WIDTH - HEIGHT) / 2
    small = image.resize((EVALUATION_SIDE, EVALUATION_SIDE), Image.BILINEAR, box=(border, 0, WIDTH - border, HEIGHT))
    small.save(args.out / "pixels.png", optimize=True)


if __name__ == "__main__":
    main()

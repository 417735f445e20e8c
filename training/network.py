"""The network: a ResNet-18 layout at reduced width, with the input normalisation inside."""

import torch
import torch.nn.functional as F
from torch import nn

# Pixel normalisation (x - 128) / 64, the same for every channel. A uint8 image then *is* a quantised
# tensor with scale 1/64 and zero point 128, so the int8 graph starts without a single arithmetic node.
PIXEL_ZERO = 128
PIXEL_SCALE = 1 / 64


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2015, https://arxiv.org/abs/1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            if stride != 1 or inputs != outputs
            else None
        )
        # Each block starts as the identity (Goyal et al. 2017, https://arxiv.org/abs/1706.02677, 5.1).
        nn.init.zeros_(self.bn2.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + shortcut)


class ResNet(nn.Module):
    """`[n, 3, h, w]` normalised float → `[n, classes]` logits.

    7x7/2 stem and max-pool, then stages of width, 2·width, 4·width and 8·width with two basic blocks each.
    """

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, 2, 1)
        blocks, inputs = [], width
        for stage in range(4):
            outputs = width * 2**stage
            blocks += [BasicBlock(inputs, outputs, 1 if stage == 0 else 2), BasicBlock(outputs, outputs, 1)]
            inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.pool(F.relu(self.bn(self.conv(x)))))
        return self.head(x.mean((2, 3)))


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """`[n, h, w, 3]` uint8 → `[n, 3, h, w]` float in channels-last memory."""
    return ((pixels.float() - PIXEL_ZERO) * PIXEL_SCALE).permute(0, 3, 1, 2)

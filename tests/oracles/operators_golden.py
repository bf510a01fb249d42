#!/usr/bin/env python3
"""PyTorch's numbers for tests/test_operators.c: transposed convolutions, pools and activations, forward and backward.

Run: python3 tests/oracles/operators_golden.py > tests/oracles/operators_golden.h

All in double. Padding that is unequal at the two ends is a layer in front.
"""
import torch
from torch import nn

from common.golden import members, series

SAMPLES = 2


def padded(module, end, value=0.0):
    """module after zeros (or `value`) of (left, right, top, bottom)."""
    return nn.Sequential(nn.ConstantPad2d(end, value), module)


class Cut(nn.Module):
    """Without the last rows and columns: an unequal padding_end of a transposed convolution."""

    def __init__(self, module, rows, columns):
        super().__init__()
        self.module, self.rows, self.columns = module, rows, columns

    def forward(self, x):
        y = self.module(x)
        return y[:, :, :y.shape[2] - self.rows, :y.shape[3] - self.columns]


LOW = -1e30  # a cell that no maximum takes
CASES = [  # net text, shape of a sample, module
    ("conv 3 kernel=3 padding=1x0 padding_end=2x1", (2, 4, 5), padded(nn.Conv2d(2, 3, 3), (0, 1, 1, 2))),
    ("conv1d 3 kernel=2 stride=2 padding=0 padding_end=1", (2, 7),
     nn.Sequential(nn.ConstantPad1d((0, 1), 0.0), nn.Conv1d(2, 3, 2, stride=2))),
    ("convtranspose 3 kernel=2 stride=2", (2, 3, 4), nn.ConvTranspose2d(2, 3, 2, stride=2)),
    ("convtranspose 4 kernel=3x2 stride=3x2 padding=1 output_padding=2x1 groups=2", (2, 3, 4),
     nn.ConvTranspose2d(2, 4, (3, 2), stride=(3, 2), padding=1, output_padding=(2, 1), groups=2)),
    ("convtranspose 2 kernel=3 padding=2x1 dilation=2 output_padding=1x0 bias=false", (3, 4, 3),
     nn.ConvTranspose2d(3, 2, 3, padding=(2, 1), dilation=2, output_padding=(1, 0), bias=False)),
    ("convtranspose 2 kernel=3 stride=2 padding=0 padding_end=1x2", (3, 3, 4),
     Cut(nn.ConvTranspose2d(3, 2, 3, stride=2), 1, 2)),
    ("convtranspose1d 3 kernel=4 stride=2 padding=1", (2, 6), nn.ConvTranspose1d(2, 3, 4, stride=2, padding=1)),
    ("maxpool 3 stride=2 padding=1 ceil=true", (2, 6, 8), nn.MaxPool2d(3, 2, 1, ceil_mode=True)),
    ("maxpool 2 stride=3 ceil=true", (1, 7, 9), nn.MaxPool2d(2, 3, ceil_mode=True)),
    ("maxpool 3x2 stride=1x2 padding=1 dilation=2x3", (2, 7, 8), nn.MaxPool2d((3, 2), (1, 2), 1, dilation=(2, 3))),
    ("maxpool 3 stride=2 padding=2x1 padding_end=0x2", (1, 5, 6), padded(nn.MaxPool2d(3, 2), (1, 2, 2, 0), LOW)),
    ("maxpool 3 stride=2 padding=1 dilation=2 ceil=true", (2, 10), nn.MaxPool1d(3, 2, 1, dilation=2, ceil_mode=True)),
    ("avgpool 3 stride=2 padding=1 ceil=true", (2, 6, 8), nn.AvgPool2d(3, 2, 1, ceil_mode=True)),
    ("avgpool 3x2 stride=2x3 padding=1 ceil=true count_pad=false", (2, 6, 8),
     nn.AvgPool2d((3, 2), (2, 3), 1, ceil_mode=True, count_include_pad=False)),
    ("avgpool 3 stride=2 padding=1x0 padding_end=0x1", (1, 6, 6), padded(nn.AvgPool2d(3, 2), (0, 1, 1, 0))),
    ("avgpool 4 stride=3 padding=1 ceil=true", (2, 11), nn.AvgPool1d(4, 3, 1, ceil_mode=True)),
    ("elu", (2, 3, 4), nn.ELU()),
    ("elu 0.3", (6,), nn.ELU(0.3)),
    ("prelu", (2, 3, 4), nn.PReLU()),
    ("prelu 3", (3, 2, 3), nn.PReLU(3)),
    ("prelu 6", (6,), nn.PReLU(6)),
    ("clip min=0 max=6", (2, 3, 4), nn.ReLU6()),
    ("clip min=-0.5 max=1.25", (2, 3, 4), nn.Hardtanh(-0.5, 1.25)),
    ("hardsigmoid", (2, 3, 4), nn.Hardsigmoid()),
    ("hardswish", (2, 3, 4), nn.Hardswish()),
]


def run(shape, module):
    module = module.double().train()
    parameters = {name.rpartition(".")[2]: value for name, value in module.named_parameters()}
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(series(value.shape, 7, 11, 8) if name == "weight" else series(value.shape, 5, 13, 8))
    x = series((SAMPLES, *shape), 37, 101, 8, 1 / 64).requires_grad_()  # no corner of an activation
    y = module(x)
    y.backward(series(y.shape, 29, 53, 8))
    return {"y": y, "dx": x.grad, **{f"d{name}": value.grad for name, value in parameters.items()}}


def main():
    print("/* Written by operators_golden.py. */")
    print(f"enum {{ SAMPLES = {SAMPLES} }};")
    print("static const struct golden {\n    const char *text;")
    print("    int outputs; /* of a sample */\n    const float *y, *dx, *dweight, *dbias;\n} goldens[] = {")
    for text, shape, module in CASES:
        dims = "x".join(map(str, shape))
        result = run(shape, module)
        print(f'    {{.text = "input {dims}\\n{text}", .outputs = {result["y"].numel() // SAMPLES},')
        members(result)
    print("};")


if __name__ == "__main__":
    main()

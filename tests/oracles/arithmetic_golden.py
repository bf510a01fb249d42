#!/usr/bin/env python3
"""PyTorch's numbers for tests/test_arithmetic.c: small nets of joins and shapes, in one training step on a batch.

Run: python3 tests/oracles/arithmetic_golden.py > tests/oracles/arithmetic_golden.h

Each net begins with an affine whose bias has a number for each of the input's, or nearly: its gradient shows what comes back
through all of the net. All in double.
"""
import torch
from torch.nn import functional as F

from common.golden import array, series

SAMPLES = 3


def squeeze_and_excite(x, weight, bias, w1, b1, w2, b2):
    m = F.relu(x * weight + bias)
    s = F.conv2d(m.mean((2, 3), keepdim=True), w1, b1)
    return torch.sigmoid(F.conv2d(F.relu(s), w2, b2)) * m


def dense(x, weight, bias, w1, b1, w2, b2):
    a = F.relu(x * weight + bias)
    b = torch.cat([F.relu(F.conv2d(a, w1, b1, padding=1)), a], 1)
    return F.avg_pool2d(torch.cat([F.conv2d(b, w2, b2), b], 1), 2)


def shuffle(x, weight, bias, w, b):
    x = (x * weight + bias).reshape(-1, 2, 3, 2, 3).transpose(1, 2).reshape(-1, 6, 2, 3)
    return F.conv2d(x, w, b, groups=2)


def broadcast(x, weight, bias, w, b):
    a = x * weight + bias
    centred = a.mean((2, 3), keepdim=True) - a
    d = centred / torch.sigmoid(F.conv2d(a, w, b))
    return F.avg_pool2d(a, (2, 1)) + d


def softmaxes(x, weight, bias, gain):
    b = torch.softmax(x * weight + bias, 3) * gain
    return torch.softmax(torch.softmax(b, 2) * b, 1)


CASES = [  # net text, shape of a sample, shapes of the parameters in their order, the same in PyTorch
    (["input 4x3x3", "affine 4x3x3", "m: relu", "globalavgpool", "conv 2 kernel=1", "relu", "conv 4 kernel=1", "sigmoid",
      "mul m"], (4, 3, 3), [(4, 3, 3), (4, 3, 3), (2, 4, 1, 1), (2,), (4, 2, 1, 1), (4,)], squeeze_and_excite),
    (["input 2x4x4", "affine 2x4x4", "a: relu", "conv 3 kernel=3 padding=1", "relu", "b: concat a", "conv 2 kernel=1",
      "concat b", "avgpool 2"], (2, 4, 4), [(2, 4, 4), (2, 4, 4), (3, 2, 3, 3), (3,), (2, 5, 1, 1), (2,)], dense),
    (["input 6x2x3", "affine 6x1x1", "reshape 2x3x2x3", "permute 1,0,2,3", "reshape 6x2x3", "conv 4 kernel=1 groups=2"],
     (6, 2, 3), [(6, 1, 1), (6, 1, 1), (4, 3, 1, 1), (4,)], shuffle),
    (["input 3x2x4", "a: affine 3x2x4", "globalavgpool", "b: sub a", "conv 1 kernel=1 from=a", "s: sigmoid",
      "d: div s from=b", "avgpool 2x1 from=a", "add d"], (3, 2, 4), [(3, 2, 4), (3, 2, 4), (1, 3, 1, 1), (1,)], broadcast),
    (["input 2x3x4", "affine 1x3x4", "softmax axis=2", "b: affine 2x1x1 shift=false", "softmax axis=1", "mul b", "softmax"],
     (2, 3, 4), [(1, 3, 4), (1, 3, 4), (2, 1, 1)], softmaxes),
]


def run(shape, parameters, net):
    parameters = [series(p, 5, 13, 8, 0.125).requires_grad_() for p in parameters]
    y = net(series((SAMPLES, *shape), 37, 101, 16), *parameters)
    y.backward(series(y.shape, 29, 53, 8))
    return y.flatten().tolist(), [v for p in parameters for v in p.grad.flatten().tolist()]


def main():
    print("/* Written by arithmetic_golden.py. */")
    print(f"enum {{ SAMPLES = {SAMPLES} }};\n")
    print("static const struct golden {\n    const char *text;")
    print("    const float *y, *gradients; /* those of all parameters, one after the other */\n} goldens[] = {")
    for lines, shape, parameters, net in CASES:
        y, gradients = run(shape, parameters, net)
        print('    {.text = "' + "\\n".join(lines) + '",')
        print(f"     .y = (const float[]){{\n{array(y)}\n     }},")
        print(f"     .gradients = (const float[]){{\n{array(gradients)}\n     }},\n    }},")
    print("};")


if __name__ == "__main__":
    main()

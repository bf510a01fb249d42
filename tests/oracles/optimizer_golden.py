#!/usr/bin/env python3
"""Prints tests/oracles/optimizer_golden.h: what PyTorch's optimizers make of 16 weights in 5 updates.

The weights, in the order of the net of tests/test_optimizer.c (fc.weight, bn.weight, bn.bias, out.weight,
out.bias), begin as 0.1*(i % 7 - 3); the gradient of update t (from 1) is 0.05*((3*i + 5*t) % 11 - 5).
Run: python3 tests/oracles/optimizer_golden.py > tests/oracles/optimizer_golden.h
"""
import torch

SHAPES = [(2, 3), (2,), (2,), (2, 2), (2,)]
UPDATES = 5
CASES = [
    ("sgd", torch.optim.SGD, dict(lr=0.1), {}),
    ("momentum", torch.optim.SGD, dict(lr=0.1, momentum=0.9), {}),
    ("nesterov", torch.optim.SGD, dict(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01), {}),
    ("sgd_decay_weights", torch.optim.SGD, dict(lr=0.1, momentum=0.5, weight_decay=0.1), {"weights_only": True}),
    ("sgd_clip", torch.optim.SGD, dict(lr=0.1, momentum=0.9), {"clip": 0.25}),
    ("adam", torch.optim.Adam, dict(lr=0.01), {}),
    ("adam_decay", torch.optim.Adam, dict(lr=0.01, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1), {}),
    ("adamw", torch.optim.AdamW, dict(lr=0.01, weight_decay=0.1), {}),
    ("adamw_decay_weights", torch.optim.AdamW, dict(lr=0.01, weight_decay=0.1), {"weights_only": True, "clip": 0.25}),
]


def numbers(formula):
    flat = torch.tensor([formula(i) for i in range(16)], dtype=torch.float64).float()
    sizes = [torch.Size(s).numel() for s in SHAPES]
    return [part.reshape(s) for part, s in zip(flat.split(sizes), SHAPES)]


def run(optimizer, options, extra):
    parameters = [torch.nn.Parameter(w) for w in numbers(lambda i: 0.1 * (i % 7 - 3))]
    groups = parameters
    if extra.get("weights_only"):
        weights = [parameters[0], parameters[3]]
        others = [parameters[1], parameters[2], parameters[4]]
        groups = [{"params": weights}, {"params": others, "weight_decay": 0.0}]
    optimizer = optimizer(groups, **options)
    for t in range(1, UPDATES + 1):
        for p, g in zip(parameters, numbers(lambda i: 0.05 * ((3 * i + 5 * t) % 11 - 5))):
            p.grad = g
        if "clip" in extra:
            torch.nn.utils.clip_grad_norm_(parameters, extra["clip"])
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in parameters])


print(f"/* Made by optimizer_golden.py with PyTorch {torch.__version__.split('+')[0]}. */")
for name, optimizer, options, extra in CASES:
    values = [f"{v:.9g}f" if "." in f"{v:.9g}" or "e" in f"{v:.9g}" else f"{v:.1f}f"
              for v in run(optimizer, options, extra).tolist()]
    print(f"static const float golden_{name}[16] = {{")
    for i in range(0, 16, 4):
        print("    " + ", ".join(values[i:i + 4]) + ",")
    print("};")

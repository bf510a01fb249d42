#!/usr/bin/env python3
"""PyTorch's numbers for tests/test_family.c: each normalization, in one training step on a batch.

Run: python3 tests/oracles/family_golden.py > tests/oracles/family_golden.h

LayerNorm, GroupNorm and InstanceNorm2d are PyTorch's; RMSNorm, ghost batches and batch renormalization are written with its
autograd (common/torch_nets.py). All in double.
"""
import torch
from torch import nn

from common import torch_nets
from common.golden import array, series

MAP, FEATURES = (4, 3, 2), (6,)
CASES = [  # net text, samples, shape of one, module
    ("layernorm", 3, MAP, nn.LayerNorm(MAP)),
    ("layernorm eps=0.01", 3, FEATURES, nn.LayerNorm(FEATURES, eps=0.01)),
    ("groupnorm 2", 3, MAP, nn.GroupNorm(2, 4)),
    ("groupnorm 3", 3, FEATURES, nn.GroupNorm(3, 6)),
    ("instancenorm", 3, MAP, nn.InstanceNorm2d(4)),
    ("instancenorm scale=true shift=true", 3, MAP, nn.InstanceNorm2d(4, affine=True)),
    ("rmsnorm", 3, MAP, torch_nets.RMSNorm(MAP)),
    ("rmsnorm eps=0.01", 3, FEATURES, torch_nets.RMSNorm(FEATURES, eps=0.01)),
    ("batchnorm ghost=2", 3, MAP, torch_nets.GhostBatchNorm(4, 2)),
    ("batchnorm ghost=2", 5, FEATURES, torch_nets.GhostBatchNorm(6, 2)),
    ("batchnorm r_max=1.25 d_max=0.5", 3, MAP, torch_nets.BatchRenorm(4, 1.25, 0.5)),
    ("batchnorm r_max=2 d_max=1 renorm_steps=4", 5, FEATURES, torch_nets.BatchRenorm(6, 2, 1, 4)),
]


def run(n, shape, module):
    module = module.double().train()
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if name == "weight":
                value.copy_(series(value.shape, 7, 11, 8, 1.0))
            elif name == "bias":
                value.copy_(series(value.shape, 5, 13, 8))
            elif name == "running_mean":
                value.copy_(series(value.shape, 3, 7, 16))
            elif name == "running_var":
                value.copy_(series(value.shape, 3, 7, 4, 2.0))
            elif name == "num_batches_tracked":
                value.fill_(1)
    x = series((n, *shape), 37, 101, 16).requires_grad_()
    y = module(x)
    y.backward(series((n, *shape), 29, 53, 8))
    result = {"y": y, "dx": x.grad}
    for name, value in module.named_parameters():
        result[f"d{name}"] = value.grad
    for name, value in module.named_buffers():
        if value is not None and name.startswith("running"):
            result[name] = value
    return result


def main():
    print("/* Written by family_golden.py. */")
    print("static const struct golden {\n    const char *text;\n    int samples;")
    print("    const float *y, *dx, *dweight, *dbias, *running_mean, *running_var;\n} goldens[] = {")
    for text, n, shape, module in CASES:
        dims = "x".join(map(str, shape))
        print(f'    {{.text = "input {dims}\\n{text}", .samples = {n},')
        for name, value in run(n, shape, module).items():
            print(f"     .{name} = (const float[]){{\n{array(value.detach().flatten().tolist())}\n     }},")
        print("    },")
    print("};")


if __name__ == "__main__":
    main()

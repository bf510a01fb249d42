#!/usr/bin/env python3
"""PyTorch's numbers for tests/test_batch_norm.c (made with PyTorch 1.13).

Run: python3 tests/oracles/batch_norm_golden.py > tests/oracles/batch_norm_golden.h

Three training steps of BatchNorm1d(2) on [3, 2, 4] batches whose numbers are exact in float, with the default
momentum and with the cumulative average; the last step's output and gradients; then one inference.
"""
import torch


def series(count, step, modulus, scale):
    """The same numbers as series() of the test: exact in float."""
    return torch.tensor([((i * step) % modulus - modulus // 2) / scale for i in range(count)])


def run(momentum):
    bn = torch.nn.BatchNorm1d(2, momentum=momentum)
    with torch.no_grad():
        bn.weight.copy_(torch.tensor([1.5, -0.5]))
        bn.bias.copy_(torch.tensor([0.25, 2.0]))
    values = series(3 * 24, 37, 101, 16).reshape(3, 3, 2, 4)
    for batch in values:
        bn.zero_grad()
        x = batch.clone().requires_grad_()
        y = bn(x)
        y.backward(series(24, 29, 53, 8).reshape(3, 2, 4))
    bn.eval()
    return {"y": y, "dx": x.grad, "dgamma": bn.weight.grad, "dbeta": bn.bias.grad,
            "running_mean": bn.running_mean, "running_var": bn.running_var, "inference": bn(values[0])}


def tables():
    default, cumulative = run(0.1), run(None)
    result = {f"golden_{name}": value.detach().flatten().tolist() for name, value in default.items()}
    for name in "running_mean", "running_var":
        result[f"golden_cumulative_{name}"] = cumulative[name].tolist()
    return result


def header():
    lines = ["/* Written by batch_norm_golden.py. */"]
    for name, values in tables().items():
        lines.append(f"static const float {name}[] = {{")
        for i in range(0, len(values), 6):
            row = (f"{v:.9g}f," if "." in f"{v:.9g}" else f"{v:.1f}f," for v in values[i:i + 6])
            lines.append("    " + " ".join(row))
        lines.append("};")
    return "\n".join(lines)


if __name__ == "__main__":
    print(header())

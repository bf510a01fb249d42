#!/usr/bin/env python3
"""Gradient accumulation beside the large batch, here and in PyTorch:  accumulate.py BUILD

One step of SGD on 128 samples from the same weights: as one batch, and as 8 of 16. Without momentum the step is the
gradient, so what is compared is how far the accumulated gradient, and the running statistics that the step leaves, are
from the large batch's (2-norm, relative). Here both ways agree to rounding, and with PyTorch's large batch. PyTorch
normalizes each of the 8 by itself and so takes another step: its distance is printed, and is large.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch

from common import safetensors_io, torch_nets

NETS = {"lenet-bn": (torch_nets.LeNetBN, (1, 28, 28)), "mlp-bn": (torch_nets.MLPBN, (1, 28, 28)),
        "resnet20": (torch_nets.ResNet20, (3, 32, 32))}
WHOLE, PARTS = 128, 8
LR = 1.0  # so that the step is large beside the weights' rounding
HERE = 1e-5   # accumulated against whole
AGREE = 1e-2  # whole against PyTorch's, which for resnet20 is itself 6e-4 from its own in double: ReLUs at their kinks
THERE = 0.1   # what PyTorch's accumulation is at least away


def distance(got, wanted):
    """Of what the step changed, over all tensors."""
    difference = sum(float(np.sum((got[n].astype(float) - wanted[n]) ** 2)) for n in wanted)
    return (difference / sum(float(np.sum(wanted[n].astype(float) ** 2)) for n in wanted)) ** 0.5


def changes(before, after, statistics):
    names = [n for n in before if n.rsplit(".", 1)[-1] != "num_batches_tracked"
             and ("running_" in n) == statistics]
    return {n: after[n] - before[n] for n in names}


def step_there(make, state, x, y, parts):
    model = make().train()
    model.load_state_dict({n: torch.from_numpy(v) for n, v in state.items()})
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    for part_x, part_y in zip(x.chunk(parts), y.chunk(parts)):
        (torch.nn.functional.cross_entropy(model(part_x), part_y) / parts).backward()
    optimizer.step()
    return {n: v.numpy().copy() for n, v in model.state_dict().items()}


def step_here(command, folder, net, batch, parts):
    result = subprocess.run([command, "train", net, "--init", "state.safetensors", "--data", "x.npy,y.npy", "--epochs", "1",
                             "--batch", str(batch), "--accumulate", str(parts), "--lr", str(LR), "--no-shuffle", "--out",
                             "out.safetensors", "--json"], capture_output=True, text=True, cwd=folder)
    if result.returncode:
        sys.exit(result.stderr)
    assert json.loads(result.stdout)["steps"] == 1
    return safetensors_io.load(folder / "out.safetensors")[0]


def main(build):
    good = True
    for net, (make, shape) in NETS.items():
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            torch.manual_seed(3)
            state = {n: v.numpy().copy() for n, v in make().state_dict().items()}
            for tensor in state.values():  # biases 0: here those before a BN are moved into its running mean
                if tensor.ndim == 1 and np.issubdtype(tensor.dtype, np.floating) and tensor.max() != 1:
                    tensor[:] = 0
            x, y = torch.rand(WHOLE, *shape), torch.randint(0, 10, (WHOLE,))
            np.save(folder / "x.npy", x.numpy())
            np.save(folder / "y.npy", y.numpy())
            safetensors_io.save(folder / "state.safetensors", state)
            there = step_there(make, state, x, y, 1)
            parted_there = step_there(make, state, x, y, PARTS)
            here = step_here(build / "evenkeel", folder, net, WHOLE, 1)
            parted_here = step_here(build / "evenkeel", folder, net, WHOLE // PARTS, PARTS)
            for what, statistics in ("gradient", False), ("running statistics", True):
                whole, whole_there = changes(state, here, statistics), changes(state, there, statistics)
                ours = distance(changes(state, parted_here, statistics), whole)
                agree = distance(whole, whole_there)
                theirs = distance(changes(state, parted_there, statistics), whole_there)
                print(f"{net:<9} {what:<18}  8 of 16 against 128: here {ours:.1e}, PyTorch {theirs:.1e};"
                      f" 128 here against PyTorch {agree:.1e}")
                good &= bool(ours <= HERE and agree <= AGREE and theirs >= THERE)
    return 0 if good else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(pathlib.Path(sys.argv[1]).resolve()))

#!/usr/bin/env python3
"""New running statistics against NumPy's in double, and PyTorch's update_bn beside them:  recalibrate.py BUILD

Batches of 32, 32 and 6, the last ones unlike the others, as at the end of a sorted set. update_bn gives every batch the same
weight and drops the variance between them; what evenkeel recalibrate gives is the mean and variance of all 70 values.
"""
import pathlib
import sys
import tempfile

import numpy as np
import torch
from torch import nn
from torch.optim import swa_utils

from common import comparison, safetensors_io

TOLERANCE = 1e-6
BATCH = 32


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    random = np.random.default_rng(1)
    x = random.normal(size=(70, 3)) + np.where(np.arange(70) >= 64, 11, 0)[:, None]
    x = x.astype(np.float32)
    exact = x.astype(np.float64)
    mean, var = exact.mean(0), exact.var(0, ddof=1)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "net.net").write_text("input 3\nn: batchnorm\nrelu\n")
        np.save(folder / "x.npy", x)
        state = {key: value.numpy() for key, value in nn.BatchNorm1d(3).state_dict().items()}
        safetensors_io.save(folder / "state.safetensors", {f"n.{key}": value for key, value in state.items()})
        compared = comparison.Comparison(build, folder, "recalibrate")
        compared.evenkeel("convert", "state.safetensors", "--net", "net.net", "--out", "model.safetensors")
        for way in (), ("--fast",):
            compared.evenkeel("recalibrate", "model.safetensors", "--data", "x.npy", "--batch", str(BATCH), "--out",
                              "mended.safetensors", *way)
            arrays, _ = safetensors_io.load(folder / "mended.safetensors")
            what = " ".join(("batches of 32, 32, 6", *way))
            compared.report(f"{what}: mean", arrays["n.running_mean"], mean, np.maximum(1, np.abs(mean)), TOLERANCE)
            compared.report(f"{what}: variance", arrays["n.running_var"], var, np.maximum(1, var), TOLERANCE)
    model = nn.Sequential(nn.BatchNorm1d(3))
    swa_utils.update_bn(torch.from_numpy(x).split(BATCH), model)
    theirs = model[0]
    print(f"{'':<21} true mean {mean.round(2)}, variance {var.round(2)}")
    print(f"{'':<21} update_bn {theirs.running_mean.numpy().round(2)}, variance {theirs.running_var.numpy().round(2)}")
    # The contrast: were theirs right, there would be nothing to show.
    compared.good &= bool(np.all(np.abs(theirs.running_mean.numpy() - mean) > 1))
    sys.exit(not compared.good)


main()

#!/usr/bin/env python3
"""Folding against PyTorch:  fold.py BUILD

For each kind of layer a network of it and a batch normalization, before and after, with random weights and statistics of
channels that differ by factors of ten. `evenkeel fold` folds it; then
 - weights:  where PyTorch can fold (torch.nn.utils.fusion, into the layer before), its weights and ours, in units of the
             largest one;
 - outputs:  those of the folded file here, against PyTorch's unfolded network in double, in units of the largest output;
 - float, double: the certificate's own figures, of running both nets here in float, and in double.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
from torch import nn
from torch.nn.utils import fusion

from common import comparison, safetensors_io

WEIGHTS, OUTPUTS = 1e-6, 3e-6
SAMPLES = 100

KINDS = {  # the layer here and there, for 8 channels or features in
    "conv": ("8x12x11", "conv 12 kernel=3", nn.Conv2d(8, 12, 3)),
    "conv padded": ("8x12x11", "conv 12 kernel=3 padding=1", nn.Conv2d(8, 12, 3, padding=1)),
    "conv grouped": ("8x12x11", "conv 12 kernel=3 groups=4", nn.Conv2d(8, 12, 3, groups=4)),
    "conv depthwise, padded": ("8x12x11", "conv 8 kernel=3 padding=1 groups=8", nn.Conv2d(8, 8, 3, padding=1, groups=8)),
    "conv dilated, padded": ("8x12x11", "conv 12 kernel=3 padding=2 dilation=2",
                             nn.Conv2d(8, 12, 3, padding=2, dilation=2)),
    "conv strided, padded": ("8x12x11", "conv 12 kernel=3x5 padding=1x2 stride=2",
                             nn.Conv2d(8, 12, (3, 5), padding=(1, 2), stride=2)),
    "conv without bias": ("8x12x11", "conv 12 kernel=3 bias=false", nn.Conv2d(8, 12, 3, bias=False)),
    "convtranspose": ("8x6x5", "convtranspose 12 kernel=4 stride=2 padding=1",
                      nn.ConvTranspose2d(8, 12, 4, stride=2, padding=1)),
    "convtranspose grouped": ("8x6x5", "convtranspose 12 kernel=3 stride=2 output_padding=1 groups=4",
                              nn.ConvTranspose2d(8, 12, 3, stride=2, output_padding=1, groups=4)),
    "conv1d": ("8x30", "conv1d 12 kernel=1", nn.Conv1d(8, 12, 1)),
    "conv1d padded": ("8x30", "conv1d 12 kernel=5 padding=2", nn.Conv1d(8, 12, 5, padding=2)),
    "convtranspose1d": ("8x30", "convtranspose1d 12 kernel=4 stride=2", nn.ConvTranspose1d(8, 12, 4, stride=2)),
    "linear": ("8", "linear 12", nn.Linear(8, 12)),
    "flatten, linear": ("8x3x3", "flatten|linear 12", nn.Linear(72, 12)),
}
FLATTENED = "flatten, linear"
KEPT = {("conv1d padded", "after"), ("convtranspose1d", "after")}  # a sequence may end anywhere


def random_norm(channels, dimensions, random):
    norm = [nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d][dimensions - 1](channels).eval()
    scale = 10 ** random.uniform(-1, 1, channels)
    norm.running_mean[:] = torch.from_numpy(random.normal(size=channels) * scale)
    norm.running_var[:] = torch.from_numpy(scale ** 2 * random.uniform(0.5, 2, channels))
    norm.weight.data[:] = torch.from_numpy(random.normal(1, 0.3, channels))
    norm.bias.data[:] = torch.from_numpy(random.normal(size=channels))
    return norm


class Case(comparison.Comparison):
    def __init__(self, build, folder, kind, where):
        super().__init__(build, folder, f"{kind}, {where}")
        self.where = where
        random = np.random.default_rng(11)
        torch.manual_seed(3)
        shape, text, self.layer = KINDS[kind]
        self.layer.eval()
        size = [int(d) for d in shape.split("x")]
        channels = size[0] if where == "after" else self.layer(torch.zeros(1, *size)).shape[1]
        self.norm = random_norm(channels, len(size), random)
        *first, last = text.split("|")
        flat = [nn.Flatten()] if first else []
        if where == "after":
            lines, parts = ["n: batchnorm", *first, f"l: {last}"], [self.norm, *flat, self.layer]
        else:
            lines, parts = [*first, f"l: {last}", "n: batchnorm"], [*flat, self.layer, self.norm]
        (folder / "net.net").write_text("\n".join([f"input {shape}", *lines]) + "\n")
        self.model = nn.Sequential(*parts)
        scale = self.norm.running_var.sqrt().numpy() if where == "after" else np.ones(size[0])
        x = random.normal(size=(SAMPLES, *size)) * scale.reshape(-1, *[1] * (len(size) - 1))
        self.x = x.astype(np.float32)

    def run(self):
        state = {f"l.{name}": value.numpy() for name, value in self.layer.state_dict().items()}
        state.update({f"n.{name}": value.numpy() for name, value in self.norm.state_dict().items()})
        safetensors_io.save(self.folder / "state.safetensors", state)
        np.save(self.folder / "x.npy", self.x)
        self.evenkeel("convert", "state.safetensors", "--net", "net.net", "--out", "model.safetensors")
        result = subprocess.run([self.command, "fold", "model.safetensors", "--out", "folded.safetensors", "--data",
                                 "x.npy", "--samples", str(SAMPLES), "--json", "--quiet"], capture_output=True, text=True,
                                cwd=self.folder)
        if result.returncode:
            sys.exit(f"{self.name}: {result.stderr}")
        return json.loads(result.stdout)

    def weights(self):
        """PyTorch's fold, in double, and ours."""
        layer, norm = self.layer.double(), self.norm.double()
        if isinstance(layer, nn.Linear):
            fused = fusion.fuse_linear_bn_eval(layer, norm)
        else:
            transposed = isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d))
            if transposed and layer.groups > 1:
                return None  # PyTorch 1.13 does not take groups there
            fused = fusion.fuse_conv_bn_eval(layer, norm, transposed)
        arrays, _ = safetensors_io.load(self.folder / "folded.safetensors")
        return max(np.max(np.abs(arrays[f"l.{name}"] - wanted) / np.max(np.abs(wanted)))
                   for name, wanted in ((name, value.detach().numpy()) for name, value in fused.state_dict().items()))

    def compare(self, kept):
        answer = self.run()
        expected = "kept" if kept else "before" if self.where == "before" else ("after", "after-map")
        how = answer["layers"][0]["how"]
        self.good &= how in expected
        weights = self.weights() if self.where == "before" else None
        with torch.no_grad():
            wanted = self.model.double()(torch.from_numpy(self.x).double()).numpy()
        self.evenkeel("run", "folded.safetensors", "--input", "x.npy", "--output", "y.npy")
        outputs = np.max(np.abs(np.load(self.folder / "y.npy") - wanted)) / np.max(np.abs(wanted))
        self.good &= bool(outputs <= OUTPUTS) and (weights is None or bool(weights <= WEIGHTS))
        runs = {run["input"]: run["relative"] for run in answer["runs"]}
        in_float = max(value for name, value in runs.items() if name != "double")
        cells = [f"{value:.1e}" if value is not None else "-" for value in (weights, outputs, in_float, runs["double"])]
        print(f"{self.name:<32} {how:<10}" + "".join(f"{cell:>10}" for cell in cells))
        return self.good


def main():
    build, good = pathlib.Path(sys.argv[1]).resolve(), True
    print(f"{'':<32} {'':<10}" + "".join(f"{name:>10}" for name in ("weights", "outputs", "float", "double")))
    for where in "before", "after":
        for kind in KINDS:
            if (kind, where) == (FLATTENED, "before"):
                continue
            with tempfile.TemporaryDirectory() as folder:
                good &= Case(build, pathlib.Path(folder), kind, where).compare((kind, where) in KEPT)
    sys.exit(not good)


main()

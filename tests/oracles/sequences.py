#!/usr/bin/env python3
"""Sequences against PyTorch:  sequences.py BUILD

Without lengths the net is torch.nn's Conv1d, BatchNorm1d and pools. With lengths its masks are written out in autograd:
what is beyond a length is zero after every layer, and left out of every statistic, maximum and mean. Both ways: a state
dict from there gives the same outputs here in both modes, and trains on with the same losses to the same state. What
the data hold beyond a length is NaN here.
"""
import json
import pathlib
import sys
import tempfile

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from common import comparison, safetensors_io

CHANNELS, POSITIONS, CLASSES = 3, 41, 5
SAMPLES, BATCH, EPOCHS, LR = 150, 40, 2, 0.5
OUTPUTS, LOSSES, STATE = 1e-5, 1e-5, 1e-5

TEXTS = {
    "batchnorm": "net.1: batchnorm|net.5: batchnorm momentum=0.3",
    "groupnorm": "net.1: groupnorm 4|net.5: groupnorm 2",
    "instancenorm": "net.1: instancenorm scale=true shift=true eps=0.01|net.5: instancenorm scale=true shift=true eps=0.01",
}
TEXT = """input {channels}x{positions}
net.0: conv1d 16 kernel=5 padding=2
{first}
relu
maxpool 3 stride=2 padding=1
net.4: conv1d 12 kernel=4 stride=2 padding=3 dilation=2 groups=4 bias=false
{second}
sigmoid
avgpool 3 stride=2 padding=1 count_pad=false
avgpool 2 stride=1 padding=1
globalavgpool
flatten
net.11: linear {classes}
"""


def alive(lengths, positions):
    """[n, 1, positions]: 1 where a position is alive."""
    return (torch.arange(positions) < lengths[:, None])[:, None].float()


def after(lengths, kernel, stride, padding, dilation, positions):
    out = torch.div(lengths + 2 * padding - dilation * (kernel - 1) - 1, stride, rounding_mode="floor") + 1
    return out.clamp(1, positions)


class Net(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm = norm
        first, second = {
            "batchnorm": lambda: (nn.BatchNorm1d(16), nn.BatchNorm1d(12, momentum=0.3)),
            "groupnorm": lambda: (nn.GroupNorm(4, 16), nn.GroupNorm(2, 12)),
            "instancenorm": lambda: (nn.InstanceNorm1d(16, affine=True, eps=0.01),
                                     nn.InstanceNorm1d(12, affine=True, eps=0.01)),
        }[norm]()
        self.net = nn.ModuleDict({
            "0": nn.Conv1d(CHANNELS, 16, 5, padding=2), "1": first,
            "4": nn.Conv1d(16, 12, 4, stride=2, padding=3, dilation=2, groups=4, bias=False), "5": second,
            "11": nn.Linear(12, CLASSES)})

    def forward(self, x, lengths=None):
        if lengths is not None:
            return self.masked(x, lengths)
        net = self.net
        y = functional.max_pool1d(functional.relu(net["1"](net["0"](x))), 3, 2, 1)
        y = torch.sigmoid(net["5"](net["4"](y)))
        y = functional.avg_pool1d(functional.avg_pool1d(y, 3, 2, 1, count_include_pad=False), 2, 1, 1)
        return net["11"](y.mean(2))

    def normalize(self, norm, x, mask):
        """Over the living positions alone."""
        groups = {"batchnorm": None, "groupnorm": getattr(norm, "num_groups", None), "instancenorm": x.shape[1]}[self.norm]
        if groups is None:
            if norm.training:
                m = mask.sum()
                mean = (x * mask).sum((0, 2)) / m
                var = ((x - mean[:, None]) ** 2 * mask).sum((0, 2)) / m
                with torch.no_grad():
                    norm.running_mean.lerp_(mean, norm.momentum)
                    norm.running_var.lerp_(var * m / (m - 1), norm.momentum)
                    norm.num_batches_tracked += 1
            else:
                mean, var = norm.running_mean, norm.running_var
            y = (x - mean[:, None]) / torch.sqrt(var[:, None] + norm.eps)
        else:
            parts = x.reshape(x.shape[0], groups, -1, x.shape[2])
            m = parts.shape[2] * mask.sum(2)[:, :, None, None]
            mean = (parts * mask[:, None]).sum((2, 3), keepdim=True) / m
            var = ((parts - mean) ** 2 * mask[:, None]).sum((2, 3), keepdim=True) / m
            y = ((parts - mean) / torch.sqrt(var + norm.eps)).reshape(x.shape)
        return (y * norm.weight[:, None] + norm.bias[:, None]) * mask

    def masked(self, x, lengths):
        net = self.net
        mask = alive(lengths, x.shape[2])
        y = net["0"](x * mask) * mask
        y = functional.relu(self.normalize(net["1"], y, mask))
        y = functional.max_pool1d(y.masked_fill(mask == 0, -torch.inf), 3, 2, 1)
        lengths = after(lengths, 3, 2, 1, 1, y.shape[2])
        mask = alive(lengths, y.shape[2])
        y = net["4"](y.masked_fill(mask == 0, 0))
        lengths = after(lengths, 4, 2, 3, 2, y.shape[2])
        mask = alive(lengths, y.shape[2])
        y = torch.sigmoid(self.normalize(net["5"], y * mask, mask)) * mask
        # Without padding in the mean: the sums of values and of ones, each over its window.
        y, ones = 3 * functional.avg_pool1d(y, 3, 2, 1), 3 * functional.avg_pool1d(mask, 3, 2, 1)
        lengths = after(lengths, 3, 2, 1, 1, y.shape[2])
        mask = alive(lengths, y.shape[2])
        y = y / ones.clamp(min=1) * mask
        y = functional.avg_pool1d(y, 2, 1, 1)
        lengths = after(lengths, 2, 1, 1, 1, y.shape[2])
        mask = alive(lengths, y.shape[2])
        return net["11"]((y * mask).sum(2) / lengths[:, None])


class Run(comparison.Comparison):
    def __init__(self, build, folder, norm, with_lengths):
        super().__init__(build, folder, f"{norm}, {'lengths' if with_lengths else 'whole'}")
        self.norm, self.with_lengths = norm, with_lengths
        random = np.random.default_rng(5)
        self.x = random.standard_normal((SAMPLES, CHANNELS, POSITIONS), dtype=np.float32)
        self.y = random.integers(0, CLASSES, SAMPLES)
        self.lengths = random.integers(1, POSITIONS + 1, SAMPLES)
        written = self.x.copy()
        if with_lengths:
            written[np.broadcast_to(np.arange(POSITIONS) >= self.lengths[:, None, None], written.shape)] = np.nan
        np.save(folder / "x.npy", written)
        np.save(folder / "y.npy", self.y)
        np.save(folder / "lengths.npy", self.lengths)
        first, second = TEXTS[norm].split("|")
        (folder / "seq.net").write_text(TEXT.format(channels=CHANNELS, positions=POSITIONS, classes=CLASSES, first=first,
                                                    second=second))
        torch.manual_seed(3)
        self.model = Net(norm)
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                if name.endswith("running_var"):
                    value.uniform_(0.5, 2)
                elif name.split(".")[1] in ("1", "5") and value.is_floating_point():
                    value.add_(torch.randn_like(value) * 0.3)

    def batch(self, first, last):
        lengths = torch.from_numpy(self.lengths[first:last]) if self.with_lengths else None
        return torch.from_numpy(self.x[first:last]), lengths

    def train(self):
        losses, optimizer = [], torch.optim.SGD(self.model.train().parameters(), lr=LR)
        for _ in range(EPOCHS):
            for first in range(0, SAMPLES, BATCH):
                y = torch.from_numpy(self.y[first:first + BATCH])
                loss = functional.cross_entropy(self.model(*self.batch(first, first + BATCH)), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        return losses

    def run(self):
        data = "x.npy,y.npy" + (",lengths.npy" if self.with_lengths else "")
        state = {name: value.numpy().copy() for name, value in self.model.state_dict().items()}
        safetensors_io.save(self.folder / "there.safetensors", state)
        self.evenkeel("train", "seq.net", "--init", "there.safetensors", "--data", data, "--epochs", str(EPOCHS),
                      "--batch", str(BATCH), "--lr", str(LR), "--no-shuffle", "--out", "on.safetensors", "--log",
                      "log.jsonl")
        events = [json.loads(line) for line in (self.folder / "log.jsonl").read_text().splitlines()]
        wanted = self.train()
        self.report("losses", [event["loss"] for event in events if event["event"] == "step"], wanted, np.abs(wanted), LOSSES)
        got, _ = safetensors_io.load(self.folder / "on.safetensors")
        for name, value in self.model.state_dict().items():
            # The normalization after it takes the first convolution's bias away, or puts it into its running mean.
            redundant = name == "net.0.bias" and self.norm != "groupnorm"
            if redundant or name == "net.1.running_mean" or "tracked" in name:
                continue
            self.report(name, got[name], value.numpy(), max(1, value.abs().max().item()), STATE)
        if self.norm == "batchnorm":
            mean = self.model.net["1"].running_mean - self.model.net["0"].bias.detach()
            self.report("net.1.running_mean", got["net.1.running_mean"], mean.numpy(), 1, STATE)
        for mode in "eval", "train":
            self.evenkeel("run", "on.safetensors", "--input", "x.npy", "--output", "out.npy", "--mode", mode,
                          *(("--lengths", "lengths.npy") if self.with_lengths else ()))
            self.model.load_state_dict({name: torch.from_numpy(got[name].copy()) for name in self.model.state_dict()})
            with torch.no_grad():
                wanted = self.model.train(mode == "train")(*self.batch(0, SAMPLES)).numpy()
            self.report(f"outputs, {mode}", np.load(self.folder / "out.npy"), wanted, np.maximum(1, np.abs(wanted)), OUTPUTS)
        return self.good


def main(build):
    good = True
    for norm in TEXTS:
        for with_lengths in False, True:
            with tempfile.TemporaryDirectory() as folder:
                good &= Run(build, pathlib.Path(folder), norm, with_lengths).run()
    return 0 if good else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(pathlib.Path(sys.argv[1]).resolve()))

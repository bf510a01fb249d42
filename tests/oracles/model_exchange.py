#!/usr/bin/env python3
"""Models go to PyTorch and back:  model_exchange.py BUILD

For each shipped net that the texts write as a class, and one with every normalization:
 - trained here, its file loads there with strict=True, and gives the same outputs in both modes;
 - a state dict made there, with any statistics and biases, gives the same outputs here;
 - and trains on here with the losses that PyTorch has on the same batches.
"""
import json
import pathlib
import sys
import tempfile

import numpy as np
import torch

from common import comparison, safetensors_io, torch_nets

NETS = {  # shipped, or a file that is written; class, input, learning rate
    "lenet-bn": (torch_nets.LeNetBN, (1, 28, 28), 0.05),
    "lenet": (torch_nets.LeNet, (1, 28, 28), 0.05),
    "mlp-bn": (torch_nets.MLPBN, (1, 28, 28), 0.05),
    "mlp": (torch_nets.MLP, (1, 28, 28), 0.05),
    "simple-model": (torch_nets.SimpleModel, (1, 28, 28), 0.05),
    "resnet20": (torch_nets.ResNet20, (3, 32, 32), 0.001),  # a larger one magnifies ReLUs at their kinks
    "family.net": (torch_nets.Family, (1, 28, 28), 0.05),
}
OUTPUTS = 1e-5  # of logits, relative above 1
LOSSES = 1e-4   # relative
SAMPLES, BATCH = 150, 40  # neither full lane blocks nor a full last batch


class Exchange(comparison.Comparison):
    def __init__(self, build, folder, net):
        super().__init__(build, folder, net)
        self.net = net
        self.make, shape, self.lr = NETS[net]
        random = np.random.default_rng(7)
        self.x = random.random((SAMPLES, *shape), dtype=np.float32)
        self.y = random.integers(0, 10, SAMPLES)
        np.save(folder / "x.npy", self.x)
        np.save(folder / "y.npy", self.y)
        (folder / "family.net").write_text(torch_nets.FAMILY_NET)

    def compare_outputs(self, what, file, model):
        for mode in "eval", "train":
            self.evenkeel("run", file, "--input", "x.npy", "--output", "out.npy", "--mode", mode)
            with torch.no_grad():
                # Training mode moves the running statistics; they are put back.
                state = {name: value.clone() for name, value in model.state_dict().items()}
                wanted = model.train(mode == "train")(torch.from_numpy(self.x)).numpy()
                model.load_state_dict(state)
            got = np.load(self.folder / "out.npy")
            self.report(f"{what}, {mode}", got, wanted, np.maximum(1, np.abs(wanted)), OUTPUTS)

    def to_pytorch(self):
        self.evenkeel("train", self.net, "--data", "x.npy,y.npy", "--epochs", "2", "--batch", str(BATCH), "--lr",
                      str(self.lr), "--out", "here.safetensors")
        arrays, self.metadata = safetensors_io.load(self.folder / "here.safetensors")
        model = self.make()
        model.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()}, strict=True)
        self.compare_outputs("trained here, outputs", "here.safetensors", model)

    def from_pytorch(self):
        torch.manual_seed(11)
        model = self.make()
        with torch.no_grad():
            for name, value in model.state_dict().items():
                if name.endswith("running_mean"):
                    value.normal_()
                elif name.endswith("running_var"):
                    value.uniform_(0.5, 2)
        state = {name: value.numpy().copy() for name, value in model.state_dict().items()}
        # With the metadata of a file of ours, so that `run` knows the net.
        safetensors_io.save(self.folder / "whole.safetensors", state, self.metadata)
        self.compare_outputs("made there, outputs", "whole.safetensors", model)

        # Bare, as safetensors.torch.save_file leaves it.
        safetensors_io.save(self.folder / "there.safetensors", state)
        self.evenkeel("train", self.net, "--init", "there.safetensors", "--data", "x.npy,y.npy", "--epochs", "2",
                      "--batch", str(BATCH), "--lr", str(self.lr), "--no-shuffle", "--out", "on.safetensors", "--log",
                      "log.jsonl")
        events = [json.loads(line) for line in (self.folder / "log.jsonl").read_text().splitlines()]
        got = [event["loss"] for event in events if event["event"] == "step"]
        wanted = self.train(model)
        assert len(got) == len(wanted), (len(got), len(wanted))
        self.report("made there, trained on here, losses", got, wanted, np.abs(wanted), LOSSES)

    def train(self, model):
        optimizer = torch.optim.SGD(model.train().parameters(), lr=self.lr)
        losses = []
        for _ in range(2):
            for first in range(0, SAMPLES, BATCH):
                x, y = self.x[first:first + BATCH], self.y[first:first + BATCH]
                loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        return losses


def main(build):
    good = True
    for net in NETS:
        with tempfile.TemporaryDirectory() as folder:
            exchange = Exchange(build, pathlib.Path(folder), net)
            exchange.to_pytorch()
            exchange.from_pytorch()
            good &= exchange.good
    return 0 if good else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(pathlib.Path(sys.argv[1]).resolve()))

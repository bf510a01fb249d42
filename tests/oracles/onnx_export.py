#!/usr/bin/env python3
"""Nets as ONNX models:  onnx_export.py BUILD [--full]

 - lenet-bn, mlp-bn and resnet20, trained here a little (--full: whole epochs) on Fashion-MNIST where it is installed, else
   on noise: the ONNX checker takes them, and ONNX Runtime and PyTorch give the logits and the accuracy that `run` gives, on
   1,000 images.
 - Nets with every operator and convention, of random parameters: the checker takes them, and ONNX Runtime gives the same.

Without ONNX Runtime (tests/oracles/onnx_runtime.mjs says where it is looked for) the rest is done.
"""
import argparse
import gzip
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import torch

from common import comparison, safetensors_io, torch_nets

FASHION = pathlib.Path("/usr/share/datasets/fashion-mnist")
RUNTIME = pathlib.Path(__file__).with_name("onnx_runtime.mjs")
LOGITS = 1e-5  # relative above 1
IMAGES = 1000
NETS = {  # class, input, learning rate, samples to train on, epochs; with --full
    "lenet-bn": (torch_nets.LeNetBN, (1, 28, 28), 0.1, (3000, 1), (60000, 3)),
    "mlp-bn": (torch_nets.MLPBN, (1, 28, 28), 0.1, (3000, 1), (60000, 3)),
    "resnet20": (torch_nets.ResNet20, (3, 32, 32), 0.05, (320, 3), (60000, 1)),
}

OPERATORS = {
    "input": """input 3x7x9 mean=0.1,0.2,0.3 std=0.5,0.25,1
conv 4 kernel=3x2 stride=2x1 padding=1x0 dilation=1x2
batchnorm momentum=none
flatten
linear 5
softmax""",
    "features": """input 12 mean=0.5
linear 5
batchnorm scale=false shift=false
tanh
linear 3 bias=false""",
    "statistics of batches": """input 2x6x6
conv 4 kernel=3 groups=2
batchnorm track=false
relu
flatten
batchnorm track=false scale=false shift=false
dropout 0.2""",
    "conventions": """input 2x6x6
conv 4 kernel=3
batchnorm frozen=true eps=1e-3 momentum=0.3
silu
batchnorm ghost=2 unbiased=false
sigmoid
batchnorm r_max=3 d_max=2
leakyrelu 0.2""",
    "samples": """input 6x5x4
layernorm
groupnorm 2
groupnorm 3 scale=false
groupnorm 6 shift=false eps=1e-2
groupnorm 1 scale=false shift=false
instancenorm
instancenorm scale=true shift=true
rmsnorm
rmsnorm scale=false eps=1e-3
layernorm scale=false
layernorm shift=false
flatten
layernorm scale=false shift=false
groupnorm 4
rmsnorm
linear 7""",
    "sequence": """input 4x40
conv1d 6 kernel=3 padding=1 padding_end=2 stride=2 dilation=2 groups=2
batchnorm
silu
maxpool 3 stride=2 padding=1 ceil=true
groupnorm 2 eps=0.1
instancenorm eps=0.1
layernorm
rmsnorm
convtranspose1d 4 kernel=3 stride=2 padding=1 output_padding=1 groups=2
prelu 4
avgpool 2 padding=1 count_pad=false
avgpool 3 stride=2 padding=1 ceil=true
globalavgpool
flatten
linear 3""",
    "convolutions": """input 4x7x8
conv 6 kernel=3x2 padding=1x0 padding_end=0x2 stride=2x1 dilation=1x2 groups=2
convtranspose 4 kernel=3x2 stride=2x3 padding=1x0 padding_end=0x1 output_padding=1x2 groups=2 dilation=2x1
batchnorm
convtranspose 5 kernel=2 bias=false
conv 3 kernel=1""",
    "maxima": """input 2x17x19 std=0.5
maxpool 3 stride=2 padding=1
maxpool 3x2 stride=1 padding=1x0 padding_end=2x1
maxpool 2 stride=1 dilation=2
maxpool 2x3 stride=2 ceil=true""",
    "dilated maxima": """input 2x11x13
maxpool 3x2 stride=4x3 dilation=3 ceil=true""",
    "means": """input 2x23x29
avgpool 3x2 stride=1 padding=1
avgpool 2 stride=1x2 padding=1x0 count_pad=false
avgpool 3x2 stride=2 padding=1x0 padding_end=2x1 ceil=true
avgpool 2x3 stride=2x1 padding=0x2 ceil=true count_pad=false
avgpool 2x1""",
    "dilated means": """input 2x13x17
avgpool 3x2 stride=2 padding=1 dilation=2x3
avgpool 2 stride=3x2 padding=1 dilation=1x3 ceil=true count_pad=false""",
    "activations": """input 3x4x5
elu
elu 0.3
prelu
prelu 3
clip min=-0.1 max=0.5
clip max=0.4
clip min=0.01
hardsigmoid
hardsigmoid alpha=0.2 beta=0.4
hardswish
clip min=0 max=6
flatten
prelu 60""",
    "branches": """input 4x6x6
start: relu
conv 4 kernel=3 padding=1 bias=false
batchnorm
relu
main: conv 4 kernel=3 padding=1
batchnorm
add start
side: relu
conv 4 kernel=1 from=start
add side
relu
add start""",
    "arithmetic": """input 3x4x5
a: sigmoid
b: globalavgpool
c: relu from=a
sub b
mul a
r: add b
s: sigmoid from=a
t: div s from=r
u: sub t from=b
concat a axis=1
affine 3x1x5
permute 2,0,1
reshape 5x2x3x4
z: permute 3,1,0,2
softmax axis=2
affine 4x1x1x3 scale=false
affine 1x2x5x1 shift=false
relu
concat z axis=3
y: flatten
flatten from=u
concat y""",
}


def fashion(kind):
    def read(what, skip):
        return np.frombuffer(gzip.open(FASHION / f"{kind}-{what}-ubyte.gz").read(), np.uint8, offset=skip)

    return read("images-idx3", 16).reshape(-1, 1, 28, 28), read("labels-idx1", 8)


def images(kind, shape, count):
    """The first ones, as bytes; in colour and with a border where the net wants that."""
    if FASHION.is_dir():
        x, y = (a[:count] for a in fashion(kind))
    else:
        random = np.random.default_rng(len(kind))
        x, y = random.integers(0, 256, (count, 1, 28, 28), np.uint8), random.integers(0, 10, count, np.uint8)
    border = (shape[1] - 28) // 2
    return np.tile(np.pad(x, ((0, 0), (0, 0), (border, border), (border, border))), (1, shape[0], 1, 1)), y


class Export(comparison.Comparison):
    """Exports MODEL.safetensors in the folder, checks it, and compares what it gives for x with what `run` gives."""

    def export(self, model):
        self.evenkeel("convert", f"{model}.safetensors", "--out", f"{model}.onnx")
        file = onnx.load(self.folder / f"{model}.onnx")
        onnx.checker.check_model(file, full_check=True)
        assert [o.version for o in file.opset_import] == [17] and file.ir_version == 8
        for end in file.graph.input[0], file.graph.output[0]:
            assert end.type.tensor_type.shape.dim[0].dim_param == "N"
        return file

    def run_here(self, model, x):
        np.save(self.folder / "x.npy", x)
        self.evenkeel("run", f"{model}.safetensors", "--input", "x.npy", "--output", "y.npy")
        return np.load(self.folder / "y.npy")

    def run_there(self, model):
        """By ONNX Runtime, on the same; None: it is not here."""
        if not shutil.which("node"):
            return None
        there = self.folder / "there.npy"
        result = subprocess.run(["node", RUNTIME, self.folder / f"{model}.onnx", self.folder / "x.npy", there])
        if result.returncode not in (0, 77):
            sys.exit(f"ONNX Runtime cannot run {self.name}")
        return np.load(there) if result.returncode == 0 else None


class Trained(Export):
    def check(self, net, full):
        make, shape, lr, brief, whole = NETS[net]
        samples, epochs = whole if full else brief
        for name, array in zip("xy", images("train", shape, samples)):
            np.save(self.folder / f"train_{name}.npy", array)
        self.evenkeel("train", net, "--data", "train_x.npy,train_y.npy", "--epochs", str(epochs), "--lr", str(lr),
                      "--batch", "32", "--out", "model.safetensors")
        x, labels = images("t10k", shape, IMAGES)
        x = x.astype(np.float32) / np.float32(255)
        self.export("model")
        here = self.run_here("model", x)

        arrays, _ = safetensors_io.load(self.folder / "model.safetensors")
        model = make()
        model.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()}, strict=True)
        with torch.no_grad():
            torch_logits = model.eval()(torch.from_numpy(x)).numpy()
        self.compare("PyTorch", torch_logits, here, labels)
        there = self.run_there("model")
        if there is None:
            return False
        self.compare("ONNX Runtime", there, here, labels)
        self.compare("ONNX Runtime from PyTorch", there, torch_logits, labels)
        return True

    def compare(self, who, got, wanted, labels):
        right = [int(np.sum(np.argmax(logits, 1) == labels)) for logits in (got, wanted)]
        what = f"{who}, {right[0]} right, {np.max(np.abs(got - wanted)):.1e} of {np.max(np.abs(wanted)):.1f}"
        self.report(what, got, wanted, np.maximum(1, np.abs(wanted)), LOGITS)
        if right[0] != right[1]:
            self.good = False
            print(f"{who} has {right[0]} images right, the other {right[1]}")


class Operators(Export):
    def check(self, text):
        (self.folder / "net.net").write_text(text + "\n")
        self.evenkeel("convert", "net.net", "--out", "fresh.safetensors")
        arrays, metadata = safetensors_io.load(self.folder / "fresh.safetensors")
        random = np.random.default_rng(3)
        for name, array in arrays.items():
            if array.dtype == np.float32:
                spread = random.random(array.shape, dtype=np.float32)
                drawn = array.ndim > 1 and not np.all(array == 1)  # weights of a convolution or a linear layer
                arrays[name] = array if drawn else spread + np.float32(0.5 if np.all(array == 1) else -0.5)
        safetensors_io.save(self.folder / "model.safetensors", arrays, metadata)
        file = self.export("model")
        shape = [d.dim_value for d in file.graph.input[0].type.tensor_type.shape.dim[1:]]
        here = self.run_here("model", random.random((37, *shape), dtype=np.float32))
        there = self.run_there("model")
        if there is None:
            return False
        assert here.shape == there.shape, (here.shape, there.shape)
        self.report("ONNX Runtime", there, here, np.maximum(1, np.abs(here)), LOGITS)
        return True


def main(build, full):
    good, there = True, True
    for net in NETS:
        with tempfile.TemporaryDirectory() as folder:
            trained = Trained(build, pathlib.Path(folder), net)
            there &= trained.check(net, full)
            good &= trained.good
    for name, text in OPERATORS.items():
        with tempfile.TemporaryDirectory() as folder:
            operators = Operators(build, pathlib.Path(folder), name)
            there &= operators.check(text)
            good &= operators.good
    if not there:
        print("ONNX Runtime is not here: scripts/get-onnx-oracles.sh puts it where it is looked for")
    return 0 if good else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("--full", action="store_true")
    chosen = parser.parse_args()
    sys.exit(main(chosen.build, chosen.full))

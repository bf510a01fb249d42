#!/usr/bin/env python3
"""One hundred training steps here and in PyTorch, from the same weights and the same batches.

    parity.py BUILD           compares live runs, and PyTorch with the committed goldens
    parity.py BUILD --write   makes the goldens, tests/data/parity_NET.json

The goldens are PyTorch's numbers in float64, so that they do not hang on a machine's BLAS; live runs are compared
with PyTorch in float32 too, on the synthetic set and, where it is installed, on Fashion-MNIST.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch

from common import safetensors_io, torch_nets

GOLDENS = pathlib.Path(__file__).resolve().parent.parent / "data"
NETS = {  # and the data of its golden
    "lenet-bn": (torch_nets.LeNetBN, "synthetic"),
    "mlp-bn": (torch_nets.MLPBN, "synthetic:784"),
}
TOLERANCE = 1e-4


def evenkeel(build, net, data, folder, isa=""):
    """Evenkeel's course: its losses and running statistics; initial weights and data are left in the folder."""
    command = [build / "tests" / "test_parity", net, data, folder]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "EVENKEEL_ISA": isa})
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command))}:\n{result.stdout}{result.stderr}")
    return json.loads((folder / "course.json").read_text())


def pytorch(course, folder, dtype):
    """The same course in PyTorch."""
    model = NETS[course["net"]][0]()
    weights, _ = safetensors_io.load(folder / "init.safetensors")
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()}, strict=True)
    model.to(dtype).train()
    torch_nets.freeze_redundant_biases(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[course["optimizer"]]
    optimizer = kind(trained, lr=course["lr"])
    x = torch.from_numpy(np.load(folder / "x.npy")).to(dtype)
    y = torch.from_numpy(np.load(folder / "y.npy")).long()
    losses = []
    for step in range(len(course["loss"])):
        index = torch.arange(step * course["batch"], (step + 1) * course["batch"]) % len(x)
        loss = torch.nn.functional.cross_entropy(model(x[index]), y[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    running = {name: value.tolist() for name, value in model.state_dict().items() if "running" in name}
    return {"loss": losses, "running": running}


def distance(a, b):
    """The largest relative difference of the losses, and of the running statistics, relative above 1."""
    loss, reference = np.array(a["loss"]), np.array(b["loss"])
    assert a["running"].keys() == b["running"].keys()
    running = 0.0
    for name, values in b["running"].items():
        values = np.array(values)
        running = max(running, np.max(np.abs(a["running"][name] - values) / np.maximum(1, np.abs(values))))
    return np.max(np.abs(loss - reference) / reference), running


def report(what, a, b):
    """Prints how far apart two courses are; False beyond the tolerance. Written so that NaN is beyond."""
    loss, running = distance(a, b)
    print(f"{what:<60} loss {loss:.1e}  running statistics {running:.1e}")
    return loss <= TOLERANCE and running <= TOLERANCE


def rounded(numbers):
    return [float(f"{number:.9g}") for number in numbers]


def check(build, net, data, golden_path=None, write=False):
    """One course by all; its golden as well, if it has one. False where any two are apart."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        course = evenkeel(build, net, data, folder)
        double = pytorch(course, folder, torch.float64)
        single = pytorch(course, folder, torch.float32)
    good = report(f"{net} on {data}: Evenkeel and PyTorch", course, single)
    good &= report(f"{net} on {data}: Evenkeel and PyTorch in double", course, double)
    if golden_path and write:
        golden = {"made by": f"tests/oracles/parity.py with PyTorch {torch.__version__}",
                  "init_hash": course["init_hash"], "loss": rounded(double["loss"]),
                  "running": {name: rounded(values) for name, values in double["running"].items()}}
        golden_path.write_text(json.dumps(golden) + "\n")
    elif golden_path:
        golden = json.loads(golden_path.read_text())
        good &= report(f"{net} on {data}: golden and PyTorch in double", golden, double)
    return good


def check_real(build, net):
    """The same on Fashion-MNIST. There what float32 rounds grows under Adam and ReLU until two instruction sets part
    after some fifty steps (tests/test_parity.c says how); mlp-bn's course is compared by the oracle, in double."""
    isa = "reference" if net == "mlp-bn" else ""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        course = evenkeel(build, net, "fashion-mnist", folder, isa)
        return report(f"{net} on fashion-mnist: {isa or 'Evenkeel'} and PyTorch in double", course,
                      pytorch(course, folder, torch.float64))


def main(build, write):
    torch.use_deterministic_algorithms(True)
    good = True
    for net, (_, data) in NETS.items():
        good &= check(build, net, data, GOLDENS / f"parity_{net}.json", write)
        if pathlib.Path("/usr/share/datasets/fashion-mnist").is_dir():
            good &= check_real(build, net)
    return 0 if good else 1


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(pathlib.Path(sys.argv[1]), "--write" in sys.argv[2:]))

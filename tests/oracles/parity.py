#!/usr/bin/env python3
"""One hundred training steps here and in PyTorch, from the same weights and the same batches.

    parity.py BUILD                 compares live runs, and PyTorch with the committed goldens
    parity.py BUILD --write         makes the goldens, tests/data/parity_NET.json
    parity.py BUILD --data DATA     compares on other data, such as fashion-mnist, in full batches

The goldens are PyTorch's numbers in float64, so that they do not hang on a machine's BLAS; live runs are compared
with PyTorch in float32 too. On full data the course of mlp-bn with Adam is chaotic (tests/test_parity.c says why):
the distance between PyTorch's own float32 and float64 stands beside, and nothing is judged.
"""
import argparse
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
NETS = {"lenet-bn": torch_nets.LeNetBN, "mlp-bn": torch_nets.MLPBN}
TOLERANCE = 1e-4


def evenkeel(build, net, folder, *data, isa=""):
    """Evenkeel's course: its losses and running statistics; initial weights and data are left in the folder."""
    command = [build / "tests" / "test_parity", net, folder, *data]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "EVENKEEL_ISA": isa})
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command))}:\n{result.stdout}{result.stderr}")
    return json.loads((folder / "course.json").read_text())


def pytorch(course, folder, dtype):
    """The same course in PyTorch."""
    model = NETS[course["net"]]()
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
        index = step * course["distinct"] + torch.arange(course["batch"]) % course["distinct"]
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


def courses(build, net, *data):
    """Evenkeel's, PyTorch's in double and in float."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        course = evenkeel(build, net, folder, *data)
        return course, pytorch(course, folder, torch.float64), pytorch(course, folder, torch.float32)


def check(build, net, write):
    """False where any two are apart."""
    course, double, single = courses(build, net)
    good = report(f"{net}: Evenkeel and PyTorch", course, single)
    good &= report(f"{net}: Evenkeel and PyTorch in double", course, double)
    path = GOLDENS / f"parity_{net}.json"
    if write:
        golden = {"made by": f"tests/oracles/parity.py with PyTorch {torch.__version__}",
                  "init_hash": course["init_hash"], "loss": rounded(double["loss"]),
                  "running": {name: rounded(values) for name, values in double["running"].items()}}
        path.write_text(json.dumps(golden) + "\n")
    return good & report(f"{net}: golden and PyTorch in double", json.loads(path.read_text()), double)


def check_full(build, net, data):
    """Full batches of real data. There lenet-bn with SGD is calm; mlp-bn's course is compared by the oracle, whose
    doubles hold to the end."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        isa = "reference" if net == "mlp-bn" else ""
        course = evenkeel(build, net, folder, data, isa=isa)
        return report(f"{net} on {data}: {isa or 'Evenkeel'} and PyTorch in double", course,
                      pytorch(course, folder, torch.float64))


def show(build, net, data):
    course, double, single = courses(build, net, data)
    report(f"{net} on {data}: Evenkeel and PyTorch", course, single)
    report(f"{net} on {data}: Evenkeel and PyTorch in double", course, double)
    report(f"{net} on {data}: PyTorch and PyTorch in double", single, double)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--data")
    chosen = parser.parse_args()
    torch.use_deterministic_algorithms(True)
    if chosen.data:
        for net in NETS:
            show(chosen.build, net, chosen.data)
        return 0
    good = [check(chosen.build, net, chosen.write) for net in NETS]
    if pathlib.Path("/usr/share/datasets/fashion-mnist").is_dir():
        good += [check_full(chosen.build, net, "fashion-mnist") for net in NETS]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())

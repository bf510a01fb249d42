#!/usr/bin/env python3
"""Images per second of a training epoch on Fashion-MNIST, in Evenkeel and in PyTorch, side by side.

    bench/compare_pytorch.py [BUILD] [--rounds 5] [--threads 2]     BUILD: build/release

The contenders take turns, each in a process of its own, so that a busy machine slows all alike; the medians
over the rounds are compared, and each round's ratio shows the spread. PyTorch has the data as float tensors in
memory and takes slices of them, with no DataLoader; Evenkeel makes its batches from the bytes as it goes.
PyTorch's speed hangs on its BLAS: each that is installed (scripts/install-deps.sh bench) is a contender.
"""
import argparse
import glob
import gzip
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = pathlib.Path("/usr/share/datasets/fashion-mnist")
NETS = {  # class in torch_nets, optimizer, learning rate, batch
    "lenet-bn": ("LeNetBN", "sgd", 0.1, 128),
    "mlp-bn": ("MLPBN", "adam", 0.001, 64),
}


def pytorch_epoch(net, threads):
    """In a process of its own: prints images per second, PyTorch's version and the BLAS in use."""
    import numpy as np
    import torch
    sys.path.insert(0, str(ROOT / "tests" / "oracles"))
    from common import torch_nets

    torch.set_num_threads(threads)
    name, optimizer, lr, batch = NETS[net]
    images = np.frombuffer(gzip.open(DATA / "train-images-idx3-ubyte.gz").read(), np.uint8, offset=16)
    labels = np.frombuffer(gzip.open(DATA / "train-labels-idx1-ubyte.gz").read(), np.uint8, offset=8)
    order = torch.randperm(len(labels))
    x = (torch.from_numpy(images.reshape(-1, 1, 28, 28).astype(np.float32)) / 255)[order]
    y = torch.from_numpy(labels.astype(np.int64))[order]
    model = getattr(torch_nets, name)().train()
    optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer](model.parameters(), lr=lr)

    def steps(first, end):
        for begin in range(first, end, batch):
            loss = torch.nn.functional.cross_entropy(model(x[begin:begin + batch]), y[begin:begin + batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    steps(0, 20 * batch)
    start = time.perf_counter()
    steps(0, len(y))
    speed = len(y) / (time.perf_counter() - start)
    maps = pathlib.Path("/proc/self/maps").read_text().split()
    blas = next((path for path in maps if "libblas.so" in path), "its own BLAS")
    json.dump({"speed": speed, "torch": torch.__version__, "isa": torch.backends.cpu.get_cpu_capability()
               if hasattr(torch.backends, "cpu") else "", "blas": blas}, sys.stdout)


def evenkeel_epoch(build, net, threads):
    _, optimizer, lr, batch = NETS[net]
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder) / "log.jsonl"
        command = [build / "evenkeel", "train", net, "--data", "fashion-mnist", "--epochs", "1", "--batch", batch,
                   "--optimizer", optimizer, "--lr", lr, "--threads", threads, "--log", log, "--out",
                   pathlib.Path(folder) / "model.safetensors", "--quiet"]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
        events = [json.loads(line) for line in log.read_text().splitlines()]
    return next(event["images_per_second"] for event in events if event["event"] == "epoch")


def blas_contenders():
    """Name and environment of PyTorch with each BLAS there is."""
    contenders = {}
    for folder in sorted(glob.glob("/usr/lib/*-linux-gnu*/*/")):
        name = pathlib.Path(folder).name
        if not os.path.exists(folder + "libblas.so.3") or name == "blas":
            continue
        contenders[f"PyTorch, {name}"] = {"LD_LIBRARY_PATH": folder}
        if name.startswith("openblas") and "avx512f" in pathlib.Path("/proc/cpuinfo").read_text():
            # OpenBLAS 0.3.21 does not know recent processors and takes slow kernels for them.
            contenders[f"PyTorch, {name} as SKYLAKEX"] = {"LD_LIBRARY_PATH": folder, "OPENBLAS_CORETYPE": "SKYLAKEX"}
    return contenders or {"PyTorch": {}}


def main(arguments):
    build = arguments.build.resolve()
    threads = str(arguments.threads)
    contenders = blas_contenders()
    facts = {}

    def measure(contender, net):
        if contender == "Evenkeel":
            return evenkeel_epoch(build, net, threads)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, **contenders[contender]}
        answer = subprocess.run(["/usr/bin/python3", __file__, "--epoch", net, "--threads", threads], check=True,
                                env=environment, stdout=subprocess.PIPE, text=True).stdout
        facts[contender] = json.loads(answer)
        return facts[contender]["speed"]

    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")),
               platform.machine())
    version = subprocess.run([build / "evenkeel", "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout
    print(f"{cpu}, {threads} threads; {version.strip()}; Fashion-MNIST, one epoch, {arguments.rounds} rounds")
    for net, (_, optimizer, _, batch) in NETS.items():
        speeds = {contender: [] for contender in ["Evenkeel", *contenders]}
        for _ in range(arguments.rounds):
            for contender in speeds:
                speeds[contender].append(measure(contender, net))
        print(f"\n{net}, {optimizer}, batch {batch}:{'images/s':>36} {'Evenkeel is faster by':>24}")
        for contender, values in speeds.items():
            line = f"  {contender:<40} {statistics.median(values):>15,.0f}"
            if contender != "Evenkeel":
                ratios = [ours / theirs for ours, theirs in zip(speeds["Evenkeel"], values)]
                line += f" {statistics.median(ratios):>12.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(line)
    for contender, fact in facts.items():
        print(f"{contender}: {fact['torch']} {fact['isa']}, {os.path.realpath(fact['blas'])}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", nargs="?", type=pathlib.Path, default=ROOT / "build" / "release")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--epoch", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if not DATA.is_dir():
        sys.exit("Fashion-MNIST is not installed: scripts/install-deps.sh data")
    if chosen.epoch:
        pytorch_epoch(chosen.epoch, chosen.threads)
    else:
        main(chosen)

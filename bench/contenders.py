"""Who is measured: Evenkeel by its command, and PyTorch in a process of its own for each run.

As a program, one run of PyTorch: contenders.py '{"task": "train", ...}', which answers with JSON."""
import fcntl
import glob
import gzip
import json
import math
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PYTHON = "/usr/bin/python3"  # the system's, where the distribution's packages are
NETS = {  # what each is trained with; `torch` is its class in tests/oracles/common/torch_nets.py
    "lenet-bn": {"torch": "LeNetBN", "optimizer": "sgd", "lr": 0.1, "batch": 128, "shape": [1, 28, 28]},
    "mlp-bn": {"torch": "MLPBN", "optimizer": "adam", "lr": 0.001, "batch": 64, "shape": [1, 28, 28]},
    "resnet20": {"torch": "ResNet20", "optimizer": "sgd", "momentum": 0.9, "lr": 0.01, "batch": 128,
                 "shape": [3, 32, 32]},
}


def fashion_mnist():
    """The folder of Fashion-MNIST, or None."""
    for folder in (os.environ.get("EVENKEEL_DATA", "") + "/fashion-mnist", "/usr/share/datasets/fashion-mnist"):
        if os.path.isdir(folder):
            return pathlib.Path(folder)
    return None


def write_bytes_npy(path, shape, data):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({', '.join(map(str, shape))},), }}"
    path.write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + header.ljust(117).encode() + b"\n" + data)


def busy_seconds():
    """Seconds that all cores together were busy or stolen since the machine started."""
    user, nice, system, _, _, irq, softirq, steal = map(int, open("/proc/stat").readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


class Bench:
    """A run of the benchmark: what is measured, how long, and with what."""

    def __init__(self, build, threads, rounds, quick, lock):
        self.evenkeel = build / "evenkeel"
        self.build, self.threads, self.rounds, self.quick, self.lock = build, threads, rounds, quick, lock
        self.scratch = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self.scratch.name)
        self.facts = {}  # by contender: what PyTorch says of itself
        self.core_seconds = self.others_seconds = 0.0  # of all cores while something ran; what others took of them

    def execute(self, command, environment=None):
        """Output, peak memory in bytes, and seconds of a command, which has the machine to itself where the others
        keep to the lock as well."""
        with open(self.lock or os.devnull) as lock:
            if self.lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
            begin, busy = time.perf_counter(), busy_seconds()
            child = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True,
                                     env={**os.environ, **(environment or {})})
            output = child.stdout.read()
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            seconds = time.perf_counter() - begin
            self.core_seconds += seconds * os.cpu_count()
            self.others_seconds += max(0.0, busy_seconds() - busy - usage.ru_utime - usage.ru_stime)
        if child.returncode != 0:
            sys.exit(f"bench: failed: {' '.join(str(word) for word in command)}")
        return output, usage.ru_maxrss * 1024, seconds

    # --- data

    def random_set(self, shape):
        """x.npy,y.npy: random images and labels."""
        images = 256 if self.quick else 2048
        numbers = random.Random(1)
        paths = [self.folder / f"{name}-{shape[0]}.npy" for name in "xy"]
        if not paths[0].exists():
            write_bytes_npy(paths[0], [images, *shape], numbers.randbytes(images * math.prod(shape)))
            write_bytes_npy(paths[1], [images], bytes(numbers.choices(range(10), k=images)))
        return ",".join(str(path) for path in paths)

    def data(self, net):
        shape = NETS[net]["shape"]
        return "fashion-mnist" if shape[0] == 1 and not self.quick else self.random_set(shape)

    # --- Evenkeel

    def plain_text(self, net):
        """The net without its batch normalizations, as a file."""
        path = self.folder / f"{net}-plain.net"
        path.write_text(self.execute([self.evenkeel, "bench", net, "--without-bn"])[0])
        return path

    def train(self, net, text=None, threads=None, model=None):
        """Images a second of `evenkeel train`, and its peak memory. text: the net in another form."""
        setup = NETS[net]
        log = self.folder / "log.jsonl"
        log.unlink(missing_ok=True)
        epochs = 1 if self.quick else 2
        _, peak, _ = self.execute(
            [self.evenkeel, "train", text or net, "--data", self.data(net), "--epochs", epochs, "--batch",
             setup["batch"], "--optimizer", setup["optimizer"], "--lr", setup["lr"],
             *(["--momentum", setup["momentum"]] if "momentum" in setup else []),
             "--threads", threads or self.threads, "--log", log, "--out",
             model or self.folder / "model.safetensors", "--quiet"])
        events = [json.loads(line) for line in log.read_text().splitlines()]
        if any(event.get("skipped") for event in events):
            sys.exit(f"bench: steps of {net} were skipped, so its speed would say nothing")
        speeds = [event["images_per_second"] for event in events if event["event"] == "epoch"]
        return statistics.median(speeds), peak

    def layers(self, net, *options):
        """What `evenkeel bench` says."""
        seconds = 0.1 if self.quick else 1.5
        return json.loads(self.execute([self.evenkeel, "bench", net, "--threads", self.threads, "--seconds", seconds,
                                        "--json", *options])[0])

    # --- PyTorch

    def torch(self, contender, environment, **task):
        """One run of PyTorch; what it answers, and its peak memory. contender: "PyTorch, BLAS..."."""
        # Where cores are busy, two of its threads wait for each other without end; a quick run need not.
        task = {"threads": 1 if self.quick else self.threads, **task}
        environment = {**environment, "OMP_NUM_THREADS": str(task["threads"]), "PYTHONDONTWRITEBYTECODE": "1"}
        output, peak, _ = self.execute([PYTHON, __file__, json.dumps(task)], environment)
        answer = json.loads(output)
        self.facts[contender.split(",")[1].strip()] = answer.pop("facts")
        return answer, peak

    def torch_train(self, net, contender, environment, plain=False, channels_last=False, **more):
        setup = NETS[net]
        task = {"task": "train", "net": setup, "plain": plain, "channels_last": channels_last,
                "data": self.data(net), "batch": setup["batch"], **more}
        return self.torch(contender, environment, **task)


def blas_libraries():
    """Name and environment of PyTorch with each BLAS there is, BLIS first. The speed of its linear layers hangs on
    it."""
    libraries = {}
    for folder in sorted(glob.glob("/usr/lib/*-linux-gnu*/*/"), key=lambda path: ("/blis" not in path, path)):
        name = pathlib.Path(folder).name
        if not os.path.exists(folder + "libblas.so.3") or name == "blas":
            continue
        libraries[name] = {"LD_LIBRARY_PATH": folder}
        if name.startswith("openblas") and "avx512f" in pathlib.Path("/proc/cpuinfo").read_text():
            # OpenBLAS 0.3.21 does not know recent processors and takes slow kernels for them.
            libraries[f"{name} as SKYLAKEX"] = {"LD_LIBRARY_PATH": folder, "OPENBLAS_CORETYPE": "SKYLAKEX"}
    return libraries or {"its own BLAS": {}}


# --- one run of PyTorch


def images_of(task):
    import numpy as np
    import torch
    if task["data"] == "fashion-mnist":
        folder = fashion_mnist()
        images = np.frombuffer(gzip.open(folder / "train-images-idx3-ubyte.gz").read(), np.uint8, offset=16)
        labels = np.frombuffer(gzip.open(folder / "train-labels-idx1-ubyte.gz").read(), np.uint8, offset=8)
    else:
        images, labels = (np.load(path) for path in task["data"].split(","))
    x = torch.from_numpy(images.reshape(len(labels), *task["net"]["shape"]).astype(np.float32)) / 255
    return x, torch.from_numpy(labels.astype(np.int64))


def without_norm(module):
    """Each batch normalization becomes the identity."""
    from torch import nn
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(module, name, nn.Identity())
        else:
            without_norm(child)


def model_of(task):
    import torch
    sys.path.insert(0, str(ROOT / "tests" / "oracles"))
    from common import torch_nets
    model = getattr(torch_nets, task["net"]["torch"])()
    if task.get("plain"):
        without_norm(model)
    if task.get("channels_last"):
        model = model.to(memory_format=torch.channels_last)
    return model


def run_train(task):
    """Images a second of an epoch, after a warm-up."""
    import torch
    model = model_of(task).train()
    x, y = images_of(task)
    if "images" in task:
        x, y = x[:task["images"]], y[:task["images"]]
    if task.get("channels_last"):
        x = x.to(memory_format=torch.channels_last)
    setup, batch = task["net"], task["batch"]
    options = {"momentum": setup["momentum"]} if "momentum" in setup else {}
    optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[setup["optimizer"]](
        model.parameters(), lr=setup["lr"], **options)

    def steps(end):
        for begin in range(0, end, batch):
            loss = torch.nn.functional.cross_entropy(model(x[begin:begin + batch]), y[begin:begin + batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    steps(min(len(y) // 4, 20 * batch))
    begin = time.perf_counter()
    steps(len(y))
    return {"images_per_second": len(y) / (time.perf_counter() - begin)}


def median_seconds(call, times):
    call()
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def run_infer(task):
    """Seconds of one image and of 10,000 in batches, the best of several sizes."""
    import torch
    model = model_of(task).eval()
    x = images_of(task)[0][:10000]
    with torch.no_grad():
        one = median_seconds(lambda: model(x[:1]), task["times"])
        many = min(median_seconds(lambda: [model(part) for part in x.split(size)], 5) for size in (128, 256, 1000))
    return {"one_image_seconds": one, "images_per_second": len(x) / many}


def run_norm(task):
    """Seconds of BN + ReLU in training on an image batch of task["shape"], forward and backward."""
    import torch
    shape = task["shape"]
    norm = torch.nn.BatchNorm2d(shape[1]).train()
    x = torch.randn(shape, requires_grad=True)
    dy = torch.randn(shape)

    def once():
        begin = time.perf_counter()
        y = torch.relu(norm(x))
        middle = time.perf_counter()
        y.backward(dy)
        x.grad = None
        return middle - begin, time.perf_counter() - middle

    once()
    times = [once() for _ in range(task["times"])]
    return {"forward_seconds": statistics.median(seconds[0] for seconds in times),
            "backward_seconds": statistics.median(seconds[1] for seconds in times)}


def main():
    import torch
    task = json.loads(sys.argv[1])
    torch.set_num_threads(task["threads"])
    answer = {"train": run_train, "infer": run_infer, "norm": run_norm}[task["task"]](task)
    maps = pathlib.Path("/proc/self/maps").read_text().split()
    blas = next((os.path.realpath(path) for path in maps if "libblas.so" in path), "its own")
    answer["facts"] = {"torch": torch.__version__, "blas": blas}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()

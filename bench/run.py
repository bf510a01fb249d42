#!/usr/bin/env python3
"""Measures Evenkeel beside PyTorch and beside what the machine can do.

    bench/run.py [PART...] [--rounds 5] [--threads 2] [--json FILE] [--picture FILE.svg] [--quick]

Builds the release preset and runs these parts, or those named:

    training   images a second of each net, and of PyTorch with each BLAS that is installed
    bn         the BN tax: each net against the same without its batch normalizations
    scaling    one thread against all
    latency    a trained lenet-bn on one image, and on 10,000 in batches
    memory     peak of training lenet-bn; the time of evenkeel --version; the size of the binary
    growth     images a second by batch size, and time by width, as tables and as a picture
    operators  bench/gemm.c beside BLAS libraries and oneDNN, bench/batch_norm.c beside PyTorch, bench/onednn_norm.c

The contenders of a part take turns in processes of their own, for several rounds, so that a busy machine slows all
alike. A figure is the median of its rounds; a ratio is the median of the rounds' ratios, with the least and the
largest. The floors are measured first, in the same run. Evenkeel trains from the data set's bytes; PyTorch has its
images as floats in memory and takes slices of them, with no loader. What is printed is Markdown.
"""
import argparse
import json
import os
import pathlib
import platform
import re
import shutil
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True
import contenders
import picture
from contenders import NETS, ROOT, Bench

PARTS = ["training", "bn", "scaling", "latency", "memory", "growth", "operators"]


# --- printing


def table(headings, rows):
    """Markdown, the columns after the first to the right."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [headings, *rows]) for column in range(len(headings))]

    def line(cells):
        return "| " + " | ".join(cell.rjust(width) if column else cell.ljust(width)
                                 for column, (cell, width) in enumerate(zip(cells, widths))) + " |"
    rule = "|" + "|".join("-" * (width + 1) + ("-" if column == 0 else ":")
                          for column, width in enumerate(widths)) + "|"
    print("\n".join([line(headings), rule, *map(line, rows)]) + "\n", flush=True)


def title(text):
    print(f"### {text}\n", flush=True)


def spread(ratios):
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def ratios_of(ours, theirs):
    return [a / b for a, b in zip(ours, theirs)]


# --- turns


def take_turns(rounds, runs):
    """Each of runs {name: function} in turn; {name: values}. After the first round those of PyTorch rest that are far
    behind its best."""
    values = {name: [] for name in runs}
    for number in range(rounds):
        torch = [values[name][0] for name in runs if number and is_torch(name)]
        for name, run in runs.items():
            if not torch or not is_torch(name) or values[name][0] >= 0.8 * max(torch):
                values[name].append(run())
    return values


def torch_runs(bench, net, **task):
    runs = {}
    for blas, environment in bench.libraries.items():
        for layout in ("", ", channels last") if net == "resnet20" and not bench.quick else ("",):
            name = f"PyTorch, {blas}{layout}"

            def run(name=name, environment=environment, layout=layout):
                answer, _ = bench.torch_train(net, name, environment, channels_last=bool(layout), **task)
                return answer["images_per_second"]
            runs[name] = run
    return runs


def is_torch(name):
    return name.startswith("PyTorch")


def best_torch(values):
    """The name of PyTorch's fastest; one that rests after the first round cannot be it."""
    rounds = max(len(measured) for measured in values.values())
    torch = [name for name in values if is_torch(name) and len(values[name]) == rounds]
    return max(torch, key=lambda name: statistics.median(values[name]))


# --- parts


def part_floors(bench):
    title("Floors")
    threads = sorted({1, bench.threads})
    floors = [json.loads(bench.execute([bench.evenkeel, "bench", "--floors", "--threads", count, "--json"])[0])
              for count in threads]
    kinds = {"FMA, GFLOP/s": "fma_flops", "read, GB/s": "read_bytes_per_second",
             "copy, GB/s": "copy_bytes_per_second", "copy with streaming stores, GB/s": "stream_bytes_per_second"}
    table(["", *(f"{count} thread{'s' * (count > 1)}" for count in threads)],
          [[name, *(f"{floor.get(key, 0) / 1e9:.1f}" for floor in floors)] for name, key in kinds.items()])
    return floors


def part_training(bench):
    result = {}
    for net, setup in NETS.items():
        title(f"Training {net}, {setup['optimizer']}, batch {setup['batch']}, {bench.threads} threads")
        values = take_turns(bench.rounds, {"Evenkeel": lambda: bench.train(net)[0], **torch_runs(bench, net)})
        ours, best = values["Evenkeel"], best_torch(values)
        table(["", "images/s", "Evenkeel is faster by"],
              [[name + (" (the best)" if name == best else ""), f"{statistics.median(measured):,.0f}",
                "" if name == "Evenkeel" else spread(ratios_of(ours, measured))] for name, measured in values.items()])
        result[net] = {"images_per_second": values, "best": best,
                       "ratio": statistics.median(ratios_of(ours, values[best]))}
    return result


def part_bn(bench):
    result, rows = {}, []
    for net in NETS:
        plain = bench.plain_text(net)
        runs = {"with": lambda: bench.train(net)[0], "without": lambda: bench.train(net, plain)[0]}
        values = take_turns(bench.rounds if bench.quick else 2 * bench.rounds, runs)
        tax = ratios_of(values["without"], values["with"])
        # PyTorch's best with BN and its best without need not have the same BLAS or layout.
        torch = [take_turns(min(bench.rounds, 3), torch_runs(bench, net, plain=without)) for without in (False, True)]
        torch_with, torch_without = (statistics.median(one[best_torch(one)]) for one in torch)
        rows.append([net, *(f"{statistics.median(values[key]):,.0f}" for key in runs), spread(tax),
                     f"{torch_with:,.0f}", f"{torch_without:,.0f}", f"{torch_without / torch_with:.2f}"])
        result[net] = {"images_per_second": values, "tax": statistics.median(tax),
                       "torch_with": torch[0], "torch_without": torch[1]}
    title(f"The BN tax: images/s with and without batch normalization, {bench.threads} threads")
    table(["", "with", "without", "BN tax", "PyTorch with", "without", "its tax"], rows)
    return result


def part_scaling(bench):
    result, rows = {}, []
    for net in NETS:
        values = take_turns(bench.rounds, {str(count): lambda count=count: bench.train(net, threads=count)[0]
                                           for count in (1, bench.threads)})
        ratios = ratios_of(values[str(bench.threads)], values["1"])
        rows.append([net, *(f"{statistics.median(measured):,.0f}" for measured in values.values()), spread(ratios)])
        result[net] = {"images_per_second": values, "ratio": statistics.median(ratios)}
    title("Images/s by threads")
    table(["", "1 thread", f"{bench.threads} threads", "faster by"], rows)
    return result


def part_latency(bench):
    model = bench.folder / "trained.safetensors"
    bench.train("lenet-bn", model=model)
    task = {"task": "infer", "net": NETS["lenet-bn"], "data": bench.data("lenet-bn"),
            "times": 20 if bench.quick else 1000}

    def ours():
        one = bench.layers(model)
        many = bench.layers(model, "--batch", 1000)
        return one["one_image_seconds"], many["inference_images_per_second"]

    def torch(name, environment):
        answer, _ = bench.torch(name, environment, **task)
        return answer["one_image_seconds"], answer["images_per_second"]

    rows = {"Evenkeel": [], **{f"PyTorch, {blas}": [] for blas in bench.libraries}}
    for _ in range(bench.rounds):
        rows["Evenkeel"].append(ours())
        for blas, environment in bench.libraries.items():
            rows[f"PyTorch, {blas}"].append(torch(f"PyTorch, {blas}", environment))
    title(f"A trained lenet-bn in inference, {bench.threads} threads")
    our_speed = [many for _, many in rows["Evenkeel"]]
    table(["", "one image, us", "10,000 in batches, images/s", "Evenkeel is faster by"],
          [[name, f"{statistics.median(one for one, _ in values) * 1e6:.0f}",
            f"{statistics.median(many for _, many in values):,.0f}",
            spread(ratios_of(our_speed, [many for _, many in values])) if is_torch(name) else ""]
           for name, values in rows.items()])
    return {name: {"one_image_seconds": [one for one, _ in values], "images_per_second": [many for _, many in values]}
            for name, values in rows.items()}


def part_memory(bench):
    peaks = {"Evenkeel": bench.train("lenet-bn")[1]}
    for blas, environment in bench.libraries.items():
        peaks[f"PyTorch, {blas}"] = bench.torch_train("lenet-bn", f"PyTorch, {blas}", environment)[1]
    starts = [bench.execute([bench.evenkeel, "--version"])[2] for _ in range(20)]
    stripped = bench.folder / "stripped"
    shutil.copy(bench.evenkeel, stripped)
    subprocess.run(["strip", stripped], check=True)
    title("Memory and size")
    table(["", ""],
          [[f"peak of training lenet-bn, {name}", f"{peak / 1e6:.0f} MB"] for name, peak in peaks.items()] +
          [["evenkeel --version", f"{statistics.median(starts) * 1e3:.1f} ms"],
           ["the command, stripped", f"{stripped.stat().st_size / 1e6:.2f} MB"]])
    return {"peak_bytes": peaks, "version_seconds": starts, "stripped_bytes": stripped.stat().st_size}


def bounds(answer):
    """What bounds a step, from what `evenkeel bench` says: shares of its time."""
    times = {"fma": 0.0, "memory": 0.0}
    flops = 0.0
    for layer in answer["layers"]:
        times[layer["bound"]] += layer["forward_seconds"] + layer["backward_seconds"]
        flops += layer["flops"]
    step = answer["step_seconds"]
    return {"arithmetic": times["fma"] / step, "memory": times["memory"] / step,
            "outside": answer["outside_layers_seconds"] / step, "fma": flops / step / answer["floors"]["fma_flops"]}


def bound_cells(answer):
    share = bounds(answer)
    return [f"{100 * share[key]:.0f}%" for key in ("fma", "arithmetic", "memory", "outside")]


BOUND_HEADINGS = ["of FMA peak", "time bound by FMA", "by memory", "outside layers"]


def widened(bench, net, factor):
    """The net with every layer `factor` times as wide but for the last, as a file."""
    text = json.loads(bench.execute([bench.evenkeel, "summary", net, "--json"])[0])["text"]
    places = list(re.finditer(r"(?<= )(conv|linear) (\d+)", text))[:-1]
    for place in reversed(places):
        text = text[:place.start(2)] + str(factor * int(place[2])) + text[place.end(2):]
    path = bench.folder / f"{net}-x{factor}.net"
    path.write_text(text)
    return path


def part_growth(bench):
    batches = (16, 64) if bench.quick else (16, 32, 64, 128, 256, 512, 1024)
    blas, environment = list(bench.libraries.items())[0]
    name = f"PyTorch, {blas}"
    by_batch, rows = {}, []
    for batch in batches:
        answer = bench.layers("lenet-bn", "--batch", batch)
        torch = bench.torch_train("lenet-bn", name, environment, batch=batch, images=max(4000, 20 * batch))[0]
        by_batch[batch] = {"images_per_second": answer["training_images_per_second"],
                           "torch": torch["images_per_second"], **bounds(answer)}
        rows.append([batch, f"{answer['training_images_per_second']:,.0f}", *bound_cells(answer),
                     f"{torch['images_per_second']:,.0f}"])
    title(f"lenet-bn by batch size, {bench.threads} threads")
    table(["batch", "images/s", *BOUND_HEADINGS, name], rows)

    by_width, rows = {}, []
    for net in ["lenet-bn"] if bench.quick else NETS:
        for factor in (1, 2, 4):
            answer = bench.layers(widened(bench, net, factor), "--batch", NETS[net]["batch"], "--optimizer",
                                  NETS[net]["optimizer"])
            by_width.setdefault(net, {})[factor] = {"step_seconds": answer["step_seconds"], **bounds(answer)}
            rows.append([f"{net} x{factor}", f"{answer['step_seconds'] * 1e3:.2f}", *bound_cells(answer)])
    title(f"A step by width, {bench.threads} threads")
    table(["", "ms a step", *BOUND_HEADINGS], rows)
    picture.write(
        bench.picture,
        ("Training lenet-bn: images a second", "batch size",
         {"Evenkeel": [(batch, by_batch[batch]["images_per_second"]) for batch in batches],
          name: [(batch, by_batch[batch]["torch"]) for batch in batches]}),
        ("Milliseconds a step", "width, times the net as shipped",
         {net: [(factor, one["step_seconds"] * 1e3) for factor, one in widths.items()]
          for net, widths in by_width.items()}))
    print(f"The picture: {bench.picture}\n")
    return {"batch": by_batch, "width": by_width}


NORM_SHAPES = [[32, 64, 112, 112], [32, 256, 56, 56]]


def program(bench, name, *arguments):
    """What a C program of this folder prints, built by its target; None where it is not there, or was not built for
    want of a library."""
    if not (ROOT / "bench" / f"{name}.c").exists():
        return None
    target = f"bench_{name}"
    targets = subprocess.run(["cmake", "--build", bench.build, "--target", "help"], check=True, capture_output=True,
                             text=True).stdout
    if not re.search(rf"^{target}:", targets, re.MULTILINE):
        return None
    subprocess.run(["cmake", "--build", bench.build, "--target", target], check=True, stdout=subprocess.DEVNULL)
    path = next(path for path in bench.build.glob(f"**/{target}") if path.is_file())
    return bench.execute([path, *arguments], {"OMP_NUM_THREADS": str(bench.threads)})[0]


def norm_times(text):
    """{shape: {"forward": ms, "backward": ms}} of plain NCHW arrays, from what bench_batch_norm prints."""
    times = {}
    for block in re.split(r"^(?=\S+ \[)", text or "", flags=re.MULTILINE):
        shape = re.match(r"NCHW \[(\d+),(\d+),(\d+)\]", block)
        if shape:
            times[tuple(map(int, shape.groups()))] = {
                direction: float(ms) for direction, ms in re.findall(r"^  (forward|backward) +([\d.]+) ms", block,
                                                                     re.MULTILINE)}
    return times


def show_program(name, text):
    title(f"bench/{name}.c")
    print(f"```\n{text.rstrip()}\n```\n" if text else "It is not built here: its source or its library is missing.\n")


def part_operators(bench):
    inner = 1 if bench.quick else 7
    gemm = program(bench, "gemm", bench.threads, inner, *(["lenet-bn"] if bench.quick else []))
    show_program("gemm", gemm)
    show_program("onednn_norm", program(bench, "onednn_norm", inner))

    blas, environment = list(bench.libraries.items())[0]
    ours, torch, norm = [], {}, None
    for _ in range(bench.rounds):
        norm = program(bench, "batch_norm", bench.threads, inner)
        ours.append(norm_times(norm))
        for shape in NORM_SHAPES:
            torch.setdefault(tuple(shape), []).append(
                bench.torch("PyTorch, " + blas, environment, task="norm", shape=shape, times=inner)[0])
    show_program("batch_norm", norm)
    title(f"BN + ReLU in training on plain NCHW arrays, {bench.threads} threads")
    rows, result = [], {}
    for (n, c, h, w), runs in torch.items():
        for direction in ("forward", "backward"):
            theirs = [run[direction + "_seconds"] * 1e3 for run in runs]
            mine = [times[n, c, h * w][direction] for times in ours if (n, c, h * w) in times]
            rows.append([f"{n}x{c}x{h}x{w}, {direction}", f"{statistics.median(mine):.2f}" if mine else "",
                         f"{statistics.median(theirs):.2f}", spread(ratios_of(theirs, mine)) if mine else ""])
            result[rows[-1][0]] = {"evenkeel_ms": mine, "torch_ms": theirs}
    table(["", "Evenkeel, ms", "PyTorch, ms", "Evenkeel is faster by"], rows)
    return {"batch_norm": result, "programs": {"gemm": gemm, "batch_norm": norm}}


# --- the machine


def cpu_lines(key):
    return [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith(key)]


def machine(bench):
    answer = bench.layers("simple-net", "--seconds", 0.01)
    version = bench.execute([bench.evenkeel, "--version"])[0].strip()
    return {"cpu": (cpu_lines("model name") or [platform.machine()])[0], "cores": os.cpu_count(),
            "mhz": sorted({round(float(mhz)) for mhz in cpu_lines("cpu MHz")}), "system": platform.platform(),
            "evenkeel": version, "isa": answer["isa"], "threads": bench.threads, "rounds": bench.rounds}


def print_machine(facts):
    frequency = f" at {'/'.join(map(str, facts['mhz']))} MHz" if facts["mhz"] else ""
    print(f"{facts['cpu']}, {facts['cores']} cores{frequency}, {facts['system']}; {facts['evenkeel']} with "
          f"{facts['isa']}; {facts['threads']} threads, {facts['rounds']} round{'s' * (facts['rounds'] > 1)}\n")


def print_end(bench):
    others = bench.others_seconds / bench.core_seconds
    print(f"While this ran, other programs took {100 * others:.0f}% of the cores.", end="")
    if others > 0.05:
        print(" PyTorch's threads then wait for each other, and ratios flatter Evenkeel: run it again on free cores.", end="")
    print("\n")
    for name, fact in sorted(bench.facts.items()):
        print(f"- PyTorch {fact['torch']}, {name}: {fact['blas']}")


# --- running


def missing(parts, quick):
    """What is not installed, each with how to get it."""
    has_torch = subprocess.run([contenders.PYTHON, "-c", "import numpy, torch"], stderr=subprocess.DEVNULL)
    if has_torch.returncode != 0:
        yield "PyTorch and NumPy for /usr/bin/python3: scripts/install-deps.sh oracles"
    if not quick and not contenders.fashion_mnist() and set(parts) != {"operators"}:
        yield "Fashion-MNIST: scripts/install-deps.sh data"
    if not quick and not any("blis" in name for name in contenders.blas_libraries()):
        yield "BLIS, the fastest BLAS for PyTorch: scripts/install-deps.sh bench"
    if shutil.which("strip") is None and "memory" in parts:
        yield "strip, of binutils: scripts/install-deps.sh bench"


def build_release():
    for command in (["cmake", "--preset", "release"], ["cmake", "--build", "--preset", "release"]):
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return ROOT / "build" / "release"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS) + "; none: all")
    parser.add_argument("--rounds", type=int, help="5, with --quick 1")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="all figures of all rounds")
    parser.add_argument("--picture", type=pathlib.Path, metavar="FILE.svg", default=ROOT / "build" / "growth.svg",
                        help="where growth draws (default build/growth.svg)")
    parser.add_argument("--quick", action="store_true", help="only see that all runs: a round on little random data")
    parser.add_argument("--build", type=pathlib.Path, help="a build folder to measure as it is")
    parser.add_argument("--lock", type=pathlib.Path, metavar="FILE",
                        help="hold a lock on this file while something runs, for machines that several measure on")
    chosen = parser.parse_args()
    parts = chosen.parts or PARTS
    for part in parts:
        if part not in PARTS:
            parser.error(f"there is no part '{part}'; the parts are: {', '.join(PARTS)}")
    lacking = list(missing(parts, chosen.quick))
    if lacking:
        sys.exit("bench: missing:\n  " + "\n  ".join(lacking))

    build = chosen.build.resolve() if chosen.build else build_release()
    bench = Bench(build, chosen.threads, chosen.rounds or (1 if chosen.quick else 5), chosen.quick, chosen.lock)
    bench.libraries = contenders.blas_libraries()
    if chosen.quick:
        bench.libraries = dict(list(bench.libraries.items())[:1])
    bench.picture = chosen.picture.resolve()
    result = {"machine": machine(bench)}
    print_machine(result["machine"])
    if chosen.quick:
        print("A quick run, of little data and with PyTorch on one thread: its figures say nothing.\n")
    for part in ["floors", *parts]:
        result[part] = globals()[f"part_{part}"](bench)
    print_end(bench)
    result["torch"] = bench.facts
    result["others_share_of_cores"] = bench.others_seconds / bench.core_seconds
    if chosen.json:
        chosen.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Measures a trained model as C source beside the command and ONNX Runtime.

    bench/ccode.py MODEL.safetensors --data fashion-mnist [--build build/release] [--node-modules DIR] [--rounds 15]

Writes the model as C, in floats and of eight bits, compiles both, and prints: on all test images the share of equal
classes and the largest difference of an output, the accuracy, the sizes of code, constants and memory, for this machine
and for a Cortex-M4 where its compiler is there, and the time of one image, the median of rounds in which the
contenders take turns. ONNX Runtime takes part where Node finds onnxruntime-node in DIR. The images are those of the IDX
files of $EVENKEEL_DATA or /usr/share/datasets.
"""
import argparse
import gzip
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

import numpy as np

DRIVER = r"""
#define _POSIX_C_SOURCE 199309L
#include "net.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
static float in[NET_INPUTS], out[NET_OUTPUTS];
int main(int argc, char **argv)
{
    struct timespec a, b;
    FILE *x = fopen(argv[1], "rb"), *y = argc > 2 ? fopen(argv[2], "wb") : NULL;
    long runs = 0;
    if (!x) return 1;
    if (!y) { /* seconds of one image, the first, over a fifth of a second */
        double seconds;
        if (fread(in, sizeof in, 1, x) != 1) return 1;
        net_predict(in, out);
        clock_gettime(CLOCK_MONOTONIC, &a);
        do {
            net_predict(in, out);
            runs++;
            clock_gettime(CLOCK_MONOTONIC, &b);
            seconds = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
        } while (seconds < 0.2);
        printf("%.9g\n", seconds / (double)runs);
        return 0;
    }
    while (fread(in, sizeof in, 1, x) == 1) {
        net_predict(in, out);
        fwrite(out, sizeof out, 1, y);
    }
    return fclose(y);
}
"""

NODE = r"""
const ort = require('onnxruntime-node'), fs = require('fs');
(async () => {
  const shape = process.argv[4].split('x').map(Number), count = shape.reduce((a, b) => a * b);
  const session = await ort.InferenceSession.create(process.argv[2], {intraOpNumThreads: 1, interOpNumThreads: 1});
  const bytes = fs.readFileSync(process.argv[3]), x = new Float32Array(bytes.buffer, bytes.byteOffset, count);
  const feed = {input: new ort.Tensor('float32', x, [1, ...shape])};
  for (let i = 0; i < 50; i++) await session.run(feed);
  const begin = process.hrtime.bigint(); let runs = 0, now;
  do { await session.run(feed); runs++; now = process.hrtime.bigint(); } while (now - begin < 200000000n);
  console.log(Number(now - begin) / 1e9 / runs);
})();
"""

API = r"""
#include <evenkeel.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int main(int argc, char **argv)
{
    ek_context *context;
    ek_net *net;
    ek_context_options options = ek_context_options_default();
    options.threads = 1;
    if (argc < 3 || ek_context_create(&options, &context) || ek_net_open(context, argv[1], &net)) return 1;
    static float in[1 << 22], out[1 << 20];
    FILE *x = fopen(argv[2], "rb");
    if (!x || fread(in, 4, 1 << 20, x) == 0 || ek_net_forward(net, EK_MODE_INFERENCE, 1, in, out)) return 1;
    struct timespec a, b;
    long runs = 0;
    double seconds;
    clock_gettime(CLOCK_MONOTONIC, &a);
    do {
        if (ek_net_forward(net, EK_MODE_INFERENCE, 1, in, out)) return 1;
        runs++;
        clock_gettime(CLOCK_MONOTONIC, &b);
        seconds = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
    } while (seconds < 0.2);
    printf("%.9g\n", seconds / (double)runs);
    return 0;
}
"""


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def images(name):
    folders = [os.environ.get("EVENKEEL_DATA", "."), "/usr/share/datasets", os.path.expanduser("~/.local/share/evenkeel")]
    for folder in folders:
        for path in pathlib.Path(folder, name).glob("t10k-*-ubyte*"):
            base = path.parent

            def read(kind, skip):
                file = next(base.glob(f"t10k-{kind}*"))
                return np.frombuffer((gzip.open if file.suffix == ".gz" else open)(file, "rb").read(), np.uint8)[skip:]
            return read("images", 16), read("labels", 8)
    sys.exit(f"no IDX files of {name}")


def sizes(tool, objects):
    fields = run(tool, *objects).splitlines()[1].split()
    return f"{int(fields[0]):,} code and constants, {int(fields[1]) + int(fields[2]):,} memory"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--build", default=pathlib.Path(__file__).resolve().parent.parent / "build/release")
    parser.add_argument("--node-modules")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    root = pathlib.Path(__file__).resolve().parent.parent
    evenkeel = pathlib.Path(args.build, "evenkeel").resolve()
    work = pathlib.Path(tempfile.mkdtemp())
    pixels, labels = images(args.data)
    x = pixels.reshape(len(labels), 1, 28, 28).astype(np.float32) / np.float32(255)
    x.tofile(work / "x.bin")
    np.save(work / "x.npy", x)
    run(evenkeel, "run", args.model, "--input", work / "x.npy", "--output", work / "y.npy")
    want = np.load(work / "y.npy")
    print(f"{args.model}: {len(labels):,} images, accuracy {np.mean(want.argmax(1) == labels):.4f}")

    contenders = {}
    flags = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    for kind, options in {"float": [], "int8": ["--int8", "--data", args.data]}.items():
        folder = work / kind
        folder.mkdir()
        run(evenkeel, "convert", args.model, "--out", folder / "net.c", *options)
        (folder / "driver.c").write_text(DRIVER)
        for name, level in {"-O2": ["-O2"], "-O3 -march=native": ["-O3", "-march=native"]}.items():
            program = folder / ("driver" + name.replace(" ", ""))
            run("cc", *flags, *level, "-o", program, folder / "driver.c", folder / "net.c", "-lm")
            contenders[f"C, {kind}, {name}"] = [program, work / "x.bin"]
            run(program, work / "x.bin", work / "out.bin")
            y = np.fromfile(work / "out.bin", np.float32).reshape(want.shape)
            print(f"{kind} {name}: same class on {np.mean(y.argmax(1) == want.argmax(1)):.4%}, largest difference "
                  f"{np.abs(y - want).max():.3g}, accuracy {np.mean(y.argmax(1) == labels):.4f}")
        run("cc", "-std=c99", "-O2", "-c", "-o", folder / "net.o", folder / "net.c")
        print(f"{kind}, this machine: {sizes('size', [folder / 'net.o'])} bytes")
        if shutil.which("arm-none-eabi-gcc"):
            run("arm-none-eabi-gcc", "-std=c99", "-O2", "-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard", "-c",
                "-o", folder / "m4.o", folder / "net.c")
            print(f"{kind}, Cortex-M4: {sizes('arm-none-eabi-size', [folder / 'm4.o'])} bytes")

    (work / "api.c").write_text(API)
    run("cc", "-O2", "-I", root / "include", "-o", work / "api", work / "api.c", evenkeel.parent / "libevenkeel.a", "-ljansson", "-lz",
        "-lpng", "-lpthread", "-lm")
    contenders["ek_net_forward, one thread"] = [work / "api", args.model, work / "x.bin"]
    if args.node_modules:
        run(evenkeel, "convert", args.model, "--out", work / "net.onnx")
        (work / "ort.js").write_text(NODE)
        contenders["ONNX Runtime, one thread"] = ["node", work / "ort.js", work / "net.onnx", work / "x.bin", "1x28x28"]
    times = {name: [] for name in contenders}
    for _ in range(args.rounds):
        for name, command in contenders.items():
            env = dict(os.environ, NODE_PATH=str(args.node_modules))
            times[name].append(float(run(*command, env=env)))
    for name, rounds in times.items():
        print(f"{name:30} {1e6 * statistics.median(rounds):9.1f} us an image ({1e6 * min(rounds):.1f} to {1e6 * max(rounds):.1f})")
    shutil.rmtree(work)


main()

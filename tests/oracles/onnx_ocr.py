#!/usr/bin/env python3
"""A network that others trained and exported, ch_PP-OCR's classifier, beside ONNX Runtime:  onnx_ocr.py BUILD

scripts/get-onnx-oracles.sh fetches it (or $EVENKEEL_OCR_MODEL says where it is), and ONNX Runtime. 100 random samples of
3x48x192 must give the same within 1e-4; so must the folded net. Recalibrated, it runs.
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np

from common import comparison

RUNTIME = pathlib.Path(__file__).with_name("onnx_runtime.mjs")
SHAPE, SAMPLES, TOLERANCE = (3, 48, 192), 100, 1e-4


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache", "evenkeel", "onnx")
    fetched = pathlib.Path(os.environ.get("EVENKEEL_ORACLES_DIR") or cache, "ch_ppocr_mobile_v2.0_cls_infer.onnx")
    model = os.environ.get("EVENKEEL_OCR_MODEL") or fetched
    if not pathlib.Path(model).exists() or not shutil.which("node"):
        print(f"skipped: {model} is not there, or there is no node")
        return 77
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        test = comparison.Comparison(build, folder, "ch_PP-OCR cls")
        x = np.random.default_rng(5).uniform(-1, 1, (SAMPLES, *SHAPE)).astype(np.float32)
        np.save(folder / "x.npy", x)
        np.save(folder / "labels.npy", np.arange(SAMPLES, dtype=np.uint8) % 2)
        result = subprocess.run(["node", RUNTIME, model, folder / "x.npy", folder / "there.npy"])
        if result.returncode == 77:
            return 77
        result.check_returncode()
        there = np.load(folder / "there.npy")
        test.evenkeel("convert", model, "--input", "x".join(map(str, SHAPE)), "--out", "cls.safetensors")
        test.evenkeel("fold", "cls.safetensors", "--out", "folded.safetensors")
        test.evenkeel("convert", "cls.safetensors", "--out", "again.onnx")
        for file in "cls.safetensors", "folded.safetensors", "again.onnx":
            test.evenkeel("run", file, "--input", "x.npy", "--output", "y.npy")
            test.report(file, np.load(folder / "y.npy"), there, 1, TOLERANCE)
        test.evenkeel("recalibrate", "cls.safetensors", "--data", "x.npy,labels.npy", "--out", "mended.safetensors")
        test.evenkeel("run", "mended.safetensors", "--input", "x.npy", "--output", "y.npy")
        sums = np.load(folder / "y.npy").sum(1)
        test.report("recalibrated, probabilities", sums, np.ones(SAMPLES), 1, 1e-5)
    return not test.good


if __name__ == "__main__":
    sys.exit(main())

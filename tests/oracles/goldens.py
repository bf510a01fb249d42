#!/usr/bin/env python3
"""Each *_golden.py prints its *_golden.h; this runs them all and compares with the committed files:

    goldens.py BUILD

The texts must be the same but for the last places of numbers, which a PyTorch of another version or machine may
round differently.
"""
import pathlib
import re
import subprocess
import sys

NUMBER = re.compile(r"-?\d+\.?\d*(?:e[-+]?\d+)?")


def difference(committed, printed):
    """The largest between the numbers, relative above 1; None where the texts differ besides."""
    if NUMBER.sub("0", committed) != NUMBER.sub("0", printed):
        return None
    pairs = zip(map(float, NUMBER.findall(committed)), map(float, NUMBER.findall(printed)))
    return max(abs(a - b) / max(1, abs(a)) for a, b in pairs)


good = True
for script in sorted(pathlib.Path(__file__).resolve().parent.glob("*_golden.py")):
    result = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, text=True, check=True)
    worst = difference(script.with_suffix(".h").read_text(), result.stdout)
    print(f"{script.stem:<24} {'another text' if worst is None else f'{worst:.1e}'}")
    good &= worst is not None and worst <= 1e-5
sys.exit(0 if good else 1)

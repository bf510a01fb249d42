"""Runs of the command in a folder, and how far its numbers are from others."""
import subprocess
import sys

import numpy as np


class Comparison:
    def __init__(self, build, folder, name):
        self.command, self.folder, self.name = build / "evenkeel", folder, name
        self.good = True

    def evenkeel(self, *arguments):
        result = subprocess.run([self.command, *arguments], capture_output=True, text=True, cwd=self.folder)
        if result.returncode:
            sys.exit(f"evenkeel {' '.join(arguments)}:\n{result.stdout}{result.stderr}")

    def report(self, what, got, wanted, scale, tolerance):
        error = np.max(np.abs(np.asarray(got) - wanted) / scale)
        print(f"{self.name:<21} {what:<40} {error:.1e}")
        self.good &= bool(error <= tolerance)  # NaN is not

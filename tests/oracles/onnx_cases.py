#!/usr/bin/env python3
"""ONNX's own backend tests (Debian's libonnx-testdata), imported and run:  onnx_cases.py BUILD [--write]

Each case is imported, run and compared by tests/onnx_cases.c. Which ones are skipped, and why, stands in onnx_cases.txt
beside this file; a case that comes to be skipped, passes all at once, or is skipped for another reason fails here, so that
nothing falls out silently. --write makes that file anew.
"""
import collections
import pathlib
import re
import subprocess
import sys
import textwrap

DATA = pathlib.Path("/usr/include/onnx/backend/test/data")
GROUPS = ("node", "pytorch-converted", "pytorch-operator", "simple")
LIST = pathlib.Path(__file__).with_suffix(".txt")


def run(build):
    """{"pass": [names], reason: [names]}, and the lines of those that failed."""
    lines = subprocess.run([build / "tests" / "onnx_cases", *(DATA / group for group in GROUPS)], capture_output=True,
                           text=True, check=True).stdout.splitlines()
    groups, failed, worst = collections.defaultdict(list), [], 0
    for line in lines:
        kind, rest = line.split(" ", 1)
        if kind == "pass":
            name, error = rest.split()
            groups["pass"].append(name)
            worst = max(worst, float(error))
        elif kind == "skip":
            name, why = rest.split(": ", 1)
            groups[short(why)].append(name)
        else:
            failed.append(line)
    print(f"{len(groups['pass'])} pass, the largest difference is {worst:.1e}; "
          f"{len(lines) - len(groups['pass']) - len(failed)} are skipped, {len(failed)} fail")
    return groups, failed


def short(why):
    """Without the names of nodes and values, and of several reasons the first."""
    why = why.removeprefix("cannot be read as a net: ").split("; ")[0]
    why = re.sub(r"^(\w+) \([^)]*\): there is no such layer here", r"\1: there is no such layer", why)
    why = re.sub(r"^(\w+) \([^)]*\): ", r"\1: ", why)
    return re.sub(r"'[^']*'", "'...'", re.sub(r"\d+\.?\d*(e\+\d+)?", "N", why))


def text(groups):
    out = ["What becomes of ONNX's own test cases, by reason. Made by onnx_cases.py --write.", ""]
    for why in sorted(groups, key=lambda why: (why != "pass", why)):
        out += [why, textwrap.fill(" ".join(sorted(groups[why])), 116, initial_indent="    ", subsequent_indent="    ",
                                   break_long_words=False, break_on_hyphens=False), ""]
    return "\n".join(out)


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    if not DATA.is_dir():
        print("skipped: there are no cases here; scripts/install-deps.sh oracles installs them")
        return 0
    groups, failed = run(build)
    print("\n".join(failed))
    found = text(groups)
    if sys.argv[2:] == ["--write"]:
        LIST.write_text(found)
    elif found != LIST.read_text():
        known = LIST.read_text().splitlines()
        print("\n".join(line for line in found.splitlines() if line not in known))
        print(f"{LIST.name} has it otherwise; {pathlib.Path(__file__).name} BUILD --write makes it anew")
        return 1
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

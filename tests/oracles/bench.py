"""That the benchmark runs from end to end, and answers with every figure it promises. Nothing is asserted of times."""
import json
import math
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PARTS = ["training", "bn", "scaling", "latency", "memory", "growth", "operators"]


def check_numbers(where, value):
    if isinstance(value, dict):
        assert value, f"{where} is empty"
        for key, inner in value.items():
            check_numbers(f"{where}.{key}", inner)
    elif isinstance(value, list):
        for inner in value:
            check_numbers(where, inner)
    elif isinstance(value, float):
        assert math.isfinite(value) and value >= 0, f"{where} is {value}"


def run(*arguments):
    return subprocess.run(["/usr/bin/python3", ROOT / "bench" / "run.py", *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, check=False)


def main(build):
    with tempfile.TemporaryDirectory() as folder:
        figures, chart = pathlib.Path(folder) / "figures.json", pathlib.Path(folder) / "growth.svg"
        done = run("--quick", "--build", build, "--json", figures, "--picture", chart)
        assert done.returncode == 0, done.stderr
        result = json.loads(figures.read_text())
        for part in ["machine", "floors", *PARTS, "torch"]:
            assert result[part], f"no figures of {part}"
        check_numbers("figures", result)
        for net in ("lenet-bn", "mlp-bn", "resnet20"):
            assert result["training"][net]["best"].startswith("PyTorch, ")
            assert result["bn"][net]["tax"] > 0 and result["scaling"][net]["ratio"] > 0
            assert f"Training {net}" in done.stdout
        assert chart.read_text().startswith("<svg ") and "lenet-bn" in chart.read_text()
        # What takes turns is one round's result above; here ratios of two.
        done = run("scaling", "--quick", "--rounds", "2", "--build", build, "--json", figures)
        assert done.returncode == 0, done.stderr
        assert len(json.loads(figures.read_text())["scaling"]["lenet-bn"]["images_per_second"]["1"]) == 2
    wrong = run("trainign", "--build", build)
    assert wrong.returncode == 2 and "there is no part 'trainign'" in wrong.stderr, wrong.stderr


main(sys.argv[1])

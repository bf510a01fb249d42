"""Numbers that a golden's script and its test both make, and how a golden is written."""
import torch


def series(shape, step, modulus, scale, shift=0.0):
    """The same numbers as series() of tests/golden_values.h: exact in float."""
    count = torch.Size(shape).numel()
    values = [((i * step) % modulus - modulus // 2) / scale + shift for i in range(count)]
    return torch.tensor(values, dtype=torch.float64).reshape(shape)


def array(values):
    """The inside of a C array of floats."""
    lines = []
    for i in range(0, len(values), 6):
        numbers = (f"{v:.9g}" for v in values[i:i + 6])
        lines.append("         " + " ".join(f"{v}f," if "." in v or "e" in v else f"{v}.0f," for v in numbers))
    return "\n".join(lines)

"""What tests/layer_golden.h has, too, and arrays as C has them."""
import torch


def series(shape, step, modulus, scale, shift=0.0):
    """The same numbers as series() there."""
    count = torch.Size(shape).numel()
    values = [((i * step) % modulus - modulus // 2) / scale + shift for i in range(count)]
    return torch.tensor(values, dtype=torch.float64).reshape(shape)


def array(values):
    lines = []
    for i in range(0, len(values), 6):
        numbers = (f"{v:.9g}" for v in values[i:i + 6])
        lines.append("         " + " ".join(f"{v}f," if "." in v or "e" in v else f"{v}.0f," for v in numbers))
    return "\n".join(lines)


def members(result):
    """Of a C struct: {name: tensor} as pointers to arrays."""
    for name, value in result.items():
        print(f"     .{name} = (const float[]){{\n{array(value.detach().flatten().tolist())}\n     }},")
    print("    },")

#!/usr/bin/env python3
"""Weights of Keras, Flax and ONNX, with their names and their arithmetic:  frameworks.py BUILD

Neither Keras nor Flax is a Debian package, so their layers are written here in NumPy, in double, as their documentation
defines them: channels last, kernels [h, w, in, out], flattening with the channels fastest, batch normalization with their
eps. Each net gets random weights and statistics, written under the names that the framework gives them, goes through
`evenkeel convert`, and must give the same outputs.
"""
import json
import pathlib
import sys
import tempfile

import numpy as np

from common import comparison, safetensors_io

OUTPUTS = 2e-6  # relative to the largest
SAMPLES = 21


def windows(x, size, stride):
    """[n, h, w, c] to [n, h', w', kh, kw, c]."""
    view = np.lib.stride_tricks.sliding_window_view(x, size, axis=(1, 2))
    return np.moveaxis(view[:, ::stride, ::stride], 3, -1)


def conv(x, kernel, bias=0, stride=1, padding=((0, 0), (0, 0)), groups=1):
    """Kernel [h, w, in/groups, out]."""
    x = np.pad(x, ((0, 0), *padding, (0, 0)))
    ins, outs = x.shape[3] // groups, kernel.shape[3] // groups
    parts = [np.einsum("nyxhwi,hwio->nyxo", windows(x[..., g * ins:(g + 1) * ins], kernel.shape[:2], stride),
                       kernel[..., g * outs:(g + 1) * outs]) for g in range(groups)]
    return np.concatenate(parts, axis=-1) + bias


def depthwise(x, kernel, bias=0, padding=((0, 0), (0, 0))):
    """Kernel [h, w, in, multiplier]; output i*multiplier + m comes from channel i."""
    x = np.pad(x, ((0, 0), *padding, (0, 0)))
    y = np.einsum("nyxhwi,hwim->nyxim", windows(x, kernel.shape[:2], 1), kernel)
    return y.reshape(*y.shape[:3], -1) + bias


def conv1d(x, kernel, bias=0, padding=(0, 0)):
    """[n, l, c]; kernel [k, in, out]."""
    return conv(x[:, :, None], kernel[:, None], bias, padding=(padding, (0, 0)))[:, :, 0]


def keras_transposed(x, kernel, bias, stride):
    """Conv2DTranspose(padding="valid"): each number of x adds its kernel [h, w, out, in] to where it stands in y."""
    (n, h, w, _), (kh, kw, outs, _) = x.shape, kernel.shape
    y = np.zeros((n, (h - 1) * stride + kh, (w - 1) * stride + kw, outs))
    for i in range(h):
        for j in range(w):
            y[:, i * stride:i * stride + kh, j * stride:j * stride + kw] += np.einsum("nc,hwoc->nhwo", x[:, i, j], kernel)
    return y + bias


def flax_transposed(x, kernel, bias, stride):
    """ConvTranspose(padding="VALID"): zeros between the numbers of x, kernel - 1 zeros around, then a convolution as it
    stands, [h, w, in, out]."""
    n, h, w, c = x.shape
    wide = np.zeros((n, (h - 1) * stride + 1, (w - 1) * stride + 1, c))
    wide[:, ::stride, ::stride] = x
    return conv(wide, kernel, bias, padding=[(k - 1, k - 1) for k in kernel.shape[:2]])


def prelu(x, alpha):
    return np.where(x > 0, x, alpha * x)


def batch_norm(x, eps, gamma=1, beta=0, mean=0, var=1):
    return (x - mean) / np.sqrt(var + eps) * gamma + beta


def layer_norm(x, eps, gamma, beta):
    axes = tuple(range(1, x.ndim))
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps) * gamma + beta


def relu(x):
    return np.maximum(x, 0)


def pool(x, size):
    return windows(x, (size, size), size).max(axis=(3, 4))


class Weights:
    """Makes an array under a name, as float32, and keeps it for the file."""

    def __init__(self, seed):
        self.random, self.arrays = np.random.default_rng(seed), {}

    def __call__(self, name, *shape, variance=False):
        value = self.random.uniform(0.01, 2, shape) if variance else self.random.normal(0, 0.4, shape)
        self.arrays[name] = np.asarray(value, np.float32)
        return self.arrays[name].astype(float)

    def norm(self, c, gamma, beta, mean, var):
        names = {"gamma": gamma, "beta": beta, "mean": mean, "var": var}
        return {key: self(name, c, variance=key == "var") for key, name in names.items() if name}


KERAS_NET = """\
input 3x12x10
      conv 8 kernel=3 padding=1 bias=false
bn:   batchnorm
      relu
      conv 16 kernel=3 padding=1 groups=8
      batchnorm scale=false
      relu
      conv 6 kernel=1
      relu
      maxpool 2
      flatten
      linear 14
      layernorm
      relu
      linear 5
"""


def keras(w, x, colon="", scale=False):
    """A Sequential: Conv2D, DepthwiseConv2D(depth_multiplier=2), Conv2D, Flatten, Dense, LayerNormalization, Dense."""
    def name(text):
        return f"sequential/{text}{colon}"
    same = ((1, 1), (1, 1))
    def norm(layer, c, scale=True):
        return w.norm(c, scale and name(f"{layer}/gamma"), name(f"{layer}/beta"), name(f"{layer}/moving_mean"),
                      name(f"{layer}/moving_variance"))
    x = conv(x, w(name("conv2d_3/kernel"), 3, 3, 3, 8), padding=same)
    x = relu(batch_norm(x, 1e-3, **norm("batch_normalization_9", 8)))
    kernel = "depthwise_conv2d/depthwise_kernel" if colon else "depthwise_conv2d/kernel"
    x = depthwise(x, w(name(kernel), 3, 3, 8, 2), w(name("depthwise_conv2d/bias"), 16), same)
    x = relu(batch_norm(x, 1e-3, **norm("batch_normalization_10", 16, scale)))
    x = pool(relu(conv(x, w(name("conv2d_10/kernel"), 1, 1, 16, 6), w(name("conv2d_10/bias"), 6))), 2)
    x = x.reshape(len(x), -1) @ w(name("dense/kernel"), 180, 14) + w(name("dense/bias"), 14)
    x = relu(layer_norm(x, 1e-3, w(name("layer_normalization/gamma"), 14), w(name("layer_normalization/beta"), 14)))
    return x @ w(name("dense_1/kernel"), 14, 5) + w(name("dense_1/bias"), 5)


SEPARABLE_NET = """\
input 4x9x9
      conv 4 kernel=3 groups=4 bias=false
      conv 7 kernel=1
      batchnorm
      flatten
      batchnorm
      linear 6
"""


def separable(w, x):
    """SeparableConv2D, with a number in front of each variable; a batch normalization of flattened features."""
    x = depthwise(x, w("0000/sep/depthwise_kernel", 3, 3, 4, 1))
    x = conv(x, w("0001/sep/pointwise_kernel", 1, 1, 4, 7), w("0002/sep/bias", 7))
    x = batch_norm(x, 1e-3, **w.norm(7, "0003/z_norm/gamma", "0004/z_norm/beta", "0005/z_norm/moving_mean",
                                      "0006/z_norm/moving_variance"))
    x = x.reshape(len(x), -1)
    x = batch_norm(x, 1e-3, **w.norm(343, "0007/a_norm/gamma", "0008/a_norm/beta", "0009/a_norm/moving_mean",
                                      "0010/a_norm/moving_variance"))
    return x @ w("0011/out/kernel", 343, 6) + w("0012/out/bias", 6)


UP_NET = """\
input 3x5x5
      convtranspose 6 kernel=4 stride=2
      batchnorm
      prelu {prelu}
      conv 6 kernel=3 stride=2 padding_end=1
      elu
      convtranspose 6 kernel=2x3
      flatten
      linear 4
"""


def up(x, transposed, first, norm, alpha, down, second, dense):
    """Upwards, down by a stride of 2 with padding "same", which is uneven, upwards, dense. Weights as (kernel, bias)."""
    x = prelu(norm(transposed(x, *first, 2)), alpha)
    x = conv(x, *down, stride=2, padding=((0, 1), (0, 1)))
    x = transposed(np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1), *second, 1)
    return x.reshape(len(x), -1) @ dense[0] + dense[1]


def keras_up(w, x):
    """Conv2DTranspose, BatchNormalization, PReLU(shared_axes=[1, 2]), Conv2D, ELU, Conv2DTranspose, Dense."""
    def layer(name, *shape, outs):
        return w(f"{name}/kernel", *shape), w(f"{name}/bias", outs)
    norm = w.norm(6, *(f"batch_normalization/{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")))
    return up(x, keras_transposed, layer("conv2d_transpose", 4, 4, 6, 3, outs=6), lambda x: batch_norm(x, 1e-3, **norm),
              w("p_re_lu/alpha", 1, 1, 6), layer("conv2d", 3, 3, 6, 6, outs=6),
              layer("conv2d_transpose_1", 2, 3, 6, 6, outs=6), layer("dense", 336, 4, outs=4))


def flax_up(w, x):
    """The same in Flax, whose PReLU has one slope and whose transposed kernels are [h, w, in, out], turned round."""
    def layer(name, *shape):
        return w(f"params/{name}/kernel", *shape), w(f"params/{name}/bias", shape[-1])
    norm = w.norm(6, "params/BatchNorm_0/scale", "params/BatchNorm_0/bias", "batch_stats/BatchNorm_0/mean",
                  "batch_stats/BatchNorm_0/var")
    return up(x, flax_transposed, layer("ConvTranspose_0", 4, 4, 3, 6), lambda x: batch_norm(x, 1e-5, **norm),
              w("params/PReLU_0/negative_slope"), layer("Conv_0", 3, 3, 6, 6), layer("ConvTranspose_1", 2, 3, 6, 6),
              layer("Dense_0", 336, 4))


FLAX_NET = """\
input 5x30
      conv1d 8 kernel=5 padding=2
      batchnorm
      relu
skip: conv1d 8 kernel=3 padding=1
      batchnorm
      relu
      add skip
      flatten
      linear 11
      relu
      linear 3
"""


def flax(w, x, between="/"):
    """nn.Conv, nn.BatchNorm, nn.Dense in a compact module, flattened with `between` its levels; x [n, l, c]."""
    def name(collection, *parts):
        return between.join((collection, *parts))
    def layer(kind, *shape):
        return w(name("params", kind, "kernel"), *shape), w(name("params", kind, "bias"), shape[-1])
    def norm(number, c):
        kind = f"BatchNorm_{number}"
        return w.norm(c, name("params", kind, "scale"), name("params", kind, "bias"), name("batch_stats", kind, "mean"),
                      name("batch_stats", kind, "var"))
    x = relu(batch_norm(conv1d(x, *layer("Conv_0", 5, 5, 8), padding=(2, 2)), 1e-5, **norm(0, 8)))
    x = skip = conv1d(x, *layer("Conv_1", 3, 8, 8), padding=(1, 1))
    x = relu(batch_norm(x, 1e-5, **norm(1, 8))) + skip
    kernel, bias = layer("Dense_0", 240, 11)
    x = relu(x.reshape(len(x), -1) @ kernel + bias)
    kernel, bias = layer("Dense_1", 11, 3)
    return x @ kernel + bias


ONNX_NET = """\
input 2x8x8
conv: conv 4 kernel=3
norm: batchnorm
      relu
      flatten
fc:   linear 3
"""


def onnx(w, x):
    """Initializers under the names that exporters keep; the arithmetic of NCHW, written with that of NHWC."""
    x = np.moveaxis(x, 1, -1)
    kernel = np.moveaxis(w("conv.weight", 4, 2, 3, 3), (2, 3, 1, 0), (0, 1, 2, 3))
    x = conv(x, kernel, w("conv.bias", 4))
    x = relu(batch_norm(x, 1e-5, **w.norm(4, "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")))
    return np.moveaxis(x, -1, 1).reshape(len(x), -1) @ w("fc.weight", 3, 144).T + w("fc.bias", 3)


CASES = [  # name, net, input there, function, framework, options of convert; momentum and unbiased expected
    ("keras", KERAS_NET, (12, 10, 3), keras, "keras", (), 0.01, False),
    ("keras, eps kept", KERAS_NET.replace("scale=false", ""), (12, 10, 3), lambda w, x: keras(w, x, scale=True), "keras",
     ("--keep-eps",), 0.01, False),
    ("tf.keras", KERAS_NET, (12, 10, 3), lambda w, x: keras(w, x, ":0"), "keras", (), 0.01, True),
    ("keras, separable", SEPARABLE_NET, (9, 9, 4), separable, "keras", (), 0.01, False),
    ("keras, upwards", UP_NET.format(prelu=6), (5, 5, 3), keras_up, "keras", (), 0.01, False),
    ("flax, upwards", UP_NET.format(prelu=1), (5, 5, 3), flax_up, "flax", (), 0.01, False),
    ("flax", FLAX_NET, (30, 5), flax, "flax", (), 0.01, False),
    ("flax, with points", FLAX_NET, (30, 5), lambda w, x: flax(w, x, "."), "flax", ("--momentum", "0.9"), 0.1, False),
    ("onnx", ONNX_NET, (2, 8, 8), onnx, "onnx", (), 0.1, False),
]


class Conversion(comparison.Comparison):
    def run(self, net, shape, function, framework, options, momentum, unbiased):
        weights = Weights(len(self.name))
        x = np.random.default_rng(3).normal(size=(SAMPLES, *shape)).astype(np.float32)
        wanted = function(weights, x.astype(float))
        # As safetensors writes it: by name.
        safetensors_io.save(self.folder / "there.safetensors", dict(sorted(weights.arrays.items())))
        (self.folder / "net.net").write_text(net)
        np.save(self.folder / "x.npy", x if framework == "onnx" else np.moveaxis(x, -1, 1))
        self.evenkeel("convert", "there.safetensors", "--from", framework, "--net", "net.net", "--out", "here.safetensors",
                      *options)
        self.evenkeel("run", "here.safetensors", "--input", "x.npy", "--output", "out.npy")
        self.report("outputs", np.load(self.folder / "out.npy"), wanted, max(1, np.abs(wanted).max()), OUTPUTS)
        _, metadata = safetensors_io.load(self.folder / "here.safetensors")
        for layer, said in json.loads(metadata["evenkeel.batch_norm"])["layers"].items():
            self.good &= said["momentum"] == momentum and said["running_var"] == ("unbiased" if unbiased else "biased")


def main(build):
    good = True
    for name, *case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            conversion = Conversion(build, pathlib.Path(folder), name)
            conversion.run(*case)
            good &= conversion.good
    return 0 if good else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(pathlib.Path(sys.argv[1]).resolve()))

#!/usr/bin/env python3
"""Networks of PyTorch, exported by torch.onnx and imported here:  onnx_torch.py BUILD

Small ones of the shapes that torchvision has (VGG, ResNet, MobileNet v2 and v3, DenseNet, ShuffleNet, a U-Net), with random
weights and running statistics that are far from 0 and 1, at several opsets, with and without the exporter's constant
folding, with the batch fixed and open. `evenkeel run` must give PyTorch's outputs within 1e-5 of their size.
"""
import io
import pathlib
import sys
import tempfile
import warnings

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from common import comparison

SAMPLES = 5
TOLERANCE = 1e-5


def conv_bn(inputs, outputs, kernel=3, stride=1, groups=1, activation=nn.ReLU):
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class VGG(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2, 2),
            nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(inplace=True), nn.MaxPool2d(2, 2, ceil_mode=True))
        self.avgpool = nn.AdaptiveAvgPool2d((2, 2))
        self.classifier = nn.Sequential(nn.Linear(12 * 4, 20), nn.ReLU(True), nn.Dropout(), nn.Linear(20, 10))

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, groups=2, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != 4 * width:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(out)))))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(Bottleneck(8, 4, 1), Bottleneck(16, 4, 1))
        self.layer2 = nn.Sequential(Bottleneck(16, 6, 2))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(24, 10)

    def forward(self, x):
        x = self.layer2(self.layer1(self.maxpool(functional.relu(self.bn1(self.conv1(x))))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class InvertedResidual(nn.Module):
    def __init__(self, inputs, outputs, stride, expand):
        super().__init__()
        self.add = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(conv_bn(inputs, expand, 1, activation=nn.ReLU6),
                                  conv_bn(expand, expand, 3, stride, expand, nn.ReLU6),
                                  conv_bn(expand, outputs, 1, activation=None))

    def forward(self, x):
        return x + self.conv(x) if self.add else self.conv(x)


class MobileNetV2(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(conv_bn(3, 8, 3, 2, activation=nn.ReLU6), InvertedResidual(8, 8, 1, 16),
                                      InvertedResidual(8, 12, 2, 24), conv_bn(12, 20, 1, activation=nn.ReLU6))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(20, 10))

    def forward(self, x):
        x = functional.adaptive_avg_pool2d(self.features(x), (1, 1))
        return self.classifier(torch.flatten(x, 1))


class SqueezeExcitation(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x):
        scale = functional.relu(self.fc1(functional.adaptive_avg_pool2d(x, 1)))
        return functional.hardsigmoid(self.fc2(scale)) * x


class MobileNetV3(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(conv_bn(3, 8, 3, 2, activation=nn.Hardswish), conv_bn(8, 8, 5, 1, 8, nn.Hardswish),
                                      SqueezeExcitation(8), conv_bn(8, 12, 1, activation=nn.SiLU))
        self.classifier = nn.Sequential(nn.Linear(12, 16), nn.Hardswish(), nn.Linear(16, 10))

    def forward(self, x):
        return self.classifier(self.features(x).mean([2, 3]))


class DenseLayer(nn.Module):
    def __init__(self, inputs, growth):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 8, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, growth, 3, padding=1, bias=False)

    def forward(self, features):
        x = self.conv1(functional.relu(self.norm1(torch.cat(features, 1))))
        return self.conv2(functional.relu(self.norm2(x)))


class DenseNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv0 = nn.Conv2d(3, 6, 3, 2, 1, bias=False)
        self.layers = nn.ModuleList(DenseLayer(6 + 4 * i, 4) for i in range(4))
        self.transition = nn.Sequential(nn.BatchNorm2d(22), nn.ReLU(), nn.Conv2d(22, 10, 1, bias=False), nn.AvgPool2d(2))
        self.norm, self.classifier = nn.BatchNorm2d(10), nn.Linear(10, 10)

    def forward(self, x):
        features = [self.conv0(x)]
        for layer in self.layers:
            features.append(layer(features))
        x = functional.relu(self.norm(self.transition(torch.cat(features, 1))))
        return self.classifier(torch.flatten(functional.adaptive_avg_pool2d(x, (1, 1)), 1))


class ShuffleNet(nn.Module):
    """Grouped convolutions and a channel shuffle, as ShuffleNet v1 has them."""

    def __init__(self):
        super().__init__()
        self.first = conv_bn(3, 12, 3, 2)
        self.reduce, self.depthwise = conv_bn(12, 12, 1, groups=3), conv_bn(12, 12, 3, 1, 12, None)
        self.expand = conv_bn(12, 12, 1, groups=3, activation=None)
        self.fc = nn.Linear(12, 10)

    def forward(self, x):
        start = self.first(x)
        x = self.reduce(start)
        n, c, h, w = x.shape
        x = x.view(n, 3, c // 3, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        x = functional.relu(self.expand(self.depthwise(x)) + start)
        return self.fc(x.mean((2, 3)))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1, self.down2 = conv_bn(3, 6), conv_bn(6, 10)
        self.up = nn.ConvTranspose2d(10, 6, 3, stride=2, padding=1, output_padding=1)
        self.norm, self.act = nn.BatchNorm2d(6), nn.PReLU(6)
        self.out = nn.Conv2d(12, 2, 1)

    def forward(self, x):
        first = self.down1(x)
        x = self.down2(functional.max_pool2d(first, 2))
        x = self.act(self.norm(self.up(x)))
        return torch.sigmoid(self.out(torch.cat((x, first), 1)))


class Norms(nn.Module):
    """The sibling norms, leaky and other activations, padding."""

    def __init__(self):
        super().__init__()
        self.conv, self.gn = nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8)
        self.pad, self.conv2 = nn.ZeroPad2d((1, 2, 0, 1)), nn.Conv2d(8, 6, 3)
        self.norm, self.elu = nn.InstanceNorm2d(6, affine=True), nn.ELU(0.7)
        self.fc = nn.Linear(6, 10, bias=False)

    def forward(self, x):
        x = functional.leaky_relu(self.gn(self.conv(x)), 0.2)
        x = functional.avg_pool2d(self.elu(self.norm(self.conv2(self.pad(x)))), 3, 2, 1, count_include_pad=False)
        return functional.softmax(self.fc(functional.adaptive_max_pool2d(x, 1).flatten(1)) * 2 + 1, 1)


class Sequence(nn.Module):
    """One dimension, and linear layers and layer normalization at each position."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv1d(4, 8, 5, padding=2, dilation=1), nn.BatchNorm1d(8)
        self.each, self.last = nn.Linear(8, 6), nn.Linear(6, 10)
        self.norm, self.end = nn.LayerNorm(6, eps=1e-3), nn.LayerNorm(6)

    def forward(self, x):
        x = functional.max_pool1d(torch.relu(self.bn(self.conv(x))), 2)
        return self.last(self.end(torch.tanh(self.norm(self.each(x.transpose(1, 2)))).mean(1)))


NETS = {"VGG": (VGG, (3, 30, 30)), "ResNet": (ResNet, (3, 32, 32)), "MobileNetV2": (MobileNetV2, (3, 24, 24)),
        "MobileNetV3": (MobileNetV3, (3, 20, 20)), "DenseNet": (DenseNet, (3, 16, 16)),
        "ShuffleNet": (ShuffleNet, (3, 16, 16)), "UNet": (UNet, (3, 12, 12)), "Norms": (Norms, (3, 14, 15)),
        "Sequence": (Sequence, (4, 20))}


def randomize(model):
    """Statistics and affine maps as after a training that went somewhere."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean, 0, 0.5)
            nn.init.uniform_(module.running_var, 0.3, 3)
        if getattr(module, "weight", None) is not None and module.weight.dim() == 1:
            nn.init.uniform_(module.weight, 0.4, 1.6)
            if getattr(module, "bias", None) is not None:
                nn.init.normal_(module.bias, 0, 0.3)
    return model


def export(model, path, shape, opset, folding, fixed, training=None):
    """Without folding, normalizations stay beside their convolutions; in EVAL mode the exporter folds them itself."""
    mode = torch.onnx.TrainingMode
    training = training or (mode.EVAL if folding else mode.PRESERVE)
    x = torch.randn((SAMPLES if fixed else 2), *shape)
    axes = None if fixed else {"input": {0: "batch"}, "output": {0: "batch"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, x, path, opset_version=opset, do_constant_folding=folding, training=training,
                          input_names=["input"], output_names=["output"], dynamic_axes=axes)


def compare(test, model, path, x, what):
    np.save(test.folder / "x.npy", x.numpy())
    with torch.no_grad():
        wanted = model(x).numpy()
    test.evenkeel("run", path, "--input", "x.npy", "--output", "y.npy")
    got = np.load(test.folder / "y.npy").reshape(wanted.shape)
    test.report(what, got, wanted, np.abs(wanted).max(), TOLERANCE)


def in_training(test, model, shape, x):
    """Exported by mistake in training mode: as the file says, and with the running statistics."""
    for opset in 9, 13, 16:
        export(model.train(), test.folder / "train.onnx", shape, opset, False, False, torch.onnx.TrainingMode.TRAINING)
        state = {name: value.clone() for name, value in model.state_dict().items()}
        compare(test, model, "train.onnx", x, f"opset {opset}, in training mode")
        model.load_state_dict(state) # it has moved its running statistics
        test.evenkeel("convert", "train.onnx", "--bn", "inference", "--out", "mended.safetensors")
        compare(test, model.eval(), "mended.safetensors", x, f"opset {opset}, --bn inference")


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    torch.manual_seed(3)
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for name, (make, shape) in NETS.items():
            test = comparison.Comparison(build, pathlib.Path(folder), name)
            model = randomize(make()).eval()
            x = torch.randn(SAMPLES, *shape)
            for opset in 9, 11, 13, 16:
                for folding in False, True:
                    fixed = opset in (11, 16) if folding else opset in (9, 13)
                    path = f"{name}-{opset}-{folding}.onnx"
                    export(model, test.folder / path, shape, opset, folding, fixed)
                    compare(test, model, path, x, f"opset {opset}{', folded' * folding}{', fixed batch' * fixed}")
            if name == "ResNet":
                in_training(test, model, shape, x)
            good &= test.good
    return not good


if __name__ == "__main__":
    sys.exit(main())

"""The shipped nets as the texts write them in PyTorch: the same names, so that state dicts go both ways."""
import torch
from torch import nn
from torch.nn import functional


class RMSNorm(nn.Module):
    """torch.nn.RMSNorm, which came with PyTorch 2.4."""

    def __init__(self, normalized_shape, eps=2.0 ** -23):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(normalized_shape))
        self.eps = eps

    def forward(self, x):
        dims = tuple(range(x.dim() - self.weight.dim(), x.dim()))
        return x / torch.sqrt(x.square().mean(dims, keepdim=True) + self.eps) * self.weight


def track(norm, x):
    """What a training batch does to the running statistics of a batch normalization."""
    functional.batch_norm(x.detach(), norm.running_mean, norm.running_var, training=True, momentum=norm.momentum)
    norm.num_batches_tracked += 1


class GhostBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Each `ghost` samples that follow each other normalized by themselves; one value a channel goes with those
    before. Running statistics are those of the whole batch."""

    def __init__(self, features, ghost):
        super().__init__(features)
        self.ghost = ghost

    def _check_input_dim(self, x):
        pass

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        parts = list(x.split(self.ghost))
        if len(parts) > 1 and parts[-1][:, 0].numel() == 1:
            parts[-2:] = [torch.cat(parts[-2:])]
        track(self, x)
        return torch.cat([functional.batch_norm(part, None, None, self.weight, self.bias, training=True, eps=self.eps)
                          for part in parts])


class BatchRenorm(nn.modules.batchnorm._BatchNorm):
    """Ioffe 2017; r_max and d_max rise over the first `steps` batches."""

    def __init__(self, features, r_max, d_max, steps=0):
        super().__init__(features)
        self.r_max, self.d_max, self.steps = r_max, d_max, steps

    def _check_input_dim(self, x):
        pass

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        dims = [d for d in range(x.dim()) if d != 1]
        shape = [-1 if d == 1 else 1 for d in range(x.dim())]
        mean = x.mean(dims)
        var = (x - mean.reshape(shape)).square().mean(dims)
        share = min(1.0, self.num_batches_tracked.item() / self.steps) if self.steps else 1.0
        r_max, d_max = 1 + share * (self.r_max - 1), share * self.d_max
        running_std = torch.sqrt(self.running_var + self.eps)
        r = (torch.sqrt(var + self.eps) / running_std).clamp(1 / r_max, r_max).detach()
        d = ((mean - self.running_mean) / running_std).clamp(-d_max, d_max).detach()
        track(self, x)
        xhat = (x - mean.reshape(shape)) / torch.sqrt(var + self.eps).reshape(shape)
        y = xhat * r.reshape(shape) + d.reshape(shape)
        return y * self.weight.reshape(shape) + self.bias.reshape(shape)


class Family(nn.Module):
    """Every normalization in one net, FAMILY_NET's."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2), nn.LayerNorm([8, 12, 12]), nn.Sigmoid(), nn.InstanceNorm2d(8),
            nn.Conv2d(8, 12, 3), nn.GroupNorm(4, 12), nn.Sigmoid(), nn.AvgPool2d(2),
            nn.Conv2d(12, 8, 3, padding=1), nn.InstanceNorm2d(8, affine=True), nn.Sigmoid(),
            nn.Conv2d(8, 8, 3, padding=1), GhostBatchNorm(8, 7), nn.Sigmoid(),
            nn.Conv2d(8, 8, 3), BatchRenorm(8, 1.5, 0.5, 3), nn.Sigmoid(), nn.Flatten(),
            nn.Linear(72, 24), RMSNorm(24), nn.Tanh(), nn.Linear(24, 20), nn.GroupNorm(4, 20), nn.Linear(20, 10))

    def forward(self, x):
        return self.net(x)


FAMILY_NET = """
input 1x28x28
net.0: conv 8 kernel=5 stride=2
net.1: layernorm
sigmoid
instancenorm
net.4: conv 12 kernel=3
net.5: groupnorm 4
sigmoid
avgpool 2
net.8: conv 8 kernel=3 padding=1
net.9: instancenorm scale=true shift=true
sigmoid
net.11: conv 8 kernel=3 padding=1
net.12: batchnorm ghost=7
sigmoid
net.14: conv 8 kernel=3
net.15: batchnorm r_max=1.5 d_max=0.5 renorm_steps=3
sigmoid
flatten
net.18: linear 24
net.19: rmsnorm
tanh
net.21: linear 20
net.22: groupnorm 4
net.23: linear 10
"""


class LeNetBN(nn.Module):
    """LeNet with batch normalization between each weight layer and its activation."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 6, kernel_size=5), nn.BatchNorm2d(6), nn.Sigmoid(), nn.AvgPool2d(2),
            nn.Conv2d(6, 16, kernel_size=5), nn.BatchNorm2d(16), nn.Sigmoid(), nn.AvgPool2d(2), nn.Flatten(),
            nn.Linear(256, 120), nn.BatchNorm1d(120), nn.Sigmoid(),
            nn.Linear(120, 84), nn.BatchNorm1d(84), nn.Sigmoid(), nn.Linear(84, 10))

    def forward(self, x):
        return self.net(x)


class LeNet(nn.Module):
    """The same without batch normalization."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 6, kernel_size=5), nn.Sigmoid(), nn.AvgPool2d(2),
            nn.Conv2d(6, 16, kernel_size=5), nn.Sigmoid(), nn.AvgPool2d(2), nn.Flatten(),
            nn.Linear(256, 120), nn.Sigmoid(), nn.Linear(120, 84), nn.Sigmoid(), nn.Linear(84, 10))

    def forward(self, x):
        return self.net(x)


class MLPBN(nn.Module):
    """784-256-128-64-10, batch normalization before each ReLU."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(784, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 128), nn.BatchNorm1d(128), nn.ReLU(),
            nn.Linear(128, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x):
        return self.layers(x)


class MLP(nn.Module):
    """The same without batch normalization."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(),
            nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x):
        return self.layers(x)


class SimpleModel(nn.Module):
    """784-256-10 with one batch normalization."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(784, 256)
        self.bn1 = nn.BatchNorm1d(256)
        self.fc2 = nn.Linear(256, 10)

    def forward(self, x):
        return self.fc2(functional.relu(self.bn1(self.fc1(x.flatten(1)))))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut: the identity, or a 1x1 convolution where the shape changes."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False),
                                          nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet20(nn.Module):
    """He et al. 2015 for 3x32x32, option B, as in akamaster's pytorch_resnet_cifar10; pixels from 0 to 1, which it
    normalizes as nets/resnet20.net says."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self.stage(16, 16, 1)
        self.layer2 = self.stage(16, 32, 2)
        self.layer3 = self.stage(32, 64, 2)
        self.linear = nn.Linear(64, 10)

    @staticmethod
    def stage(inputs, outputs, stride):
        return nn.Sequential(BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1),
                             BasicBlock(outputs, outputs, 1))

    def forward(self, x):
        mean = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)
        y = functional.relu(self.bn1(self.conv1((x - mean) / std)))
        y = self.layer3(self.layer2(self.layer1(y)))
        return self.linear(y.mean((2, 3)))


def freeze_redundant_biases(model):
    """A bias right before a batch normalization changes no output. Its true gradient is zero, but rounding leaves
    some, which Adam blows up to whole steps; PyTorch then only moves the bias and the running mean to and fro."""
    leaves = [module for module in model.modules() if not list(module.children())]
    for module, following in zip(leaves, leaves[1:]):
        if isinstance(following, nn.modules.batchnorm._BatchNorm) and getattr(module, "bias", None) is not None:
            module.bias.requires_grad_(False)

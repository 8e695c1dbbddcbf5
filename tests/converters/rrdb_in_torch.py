"""The network of Real-ESRGAN in PyTorch, from its papers: what tests and goldens compare with."""

import torch
from torch import nn
from torch.nn import functional


def convolution(channels_in, channels_out):
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


def activated(x):
    return functional.leaky_relu(x, 0.2)


class Dense(nn.Module):
    def __init__(self, features, growth):
        super().__init__()
        for i in range(1, 6):
            channels = growth if i < 5 else features
            setattr(self, f"conv{i}", convolution(features + (i - 1) * growth, channels))

    def forward(self, x):
        seen = [x]
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen.append(activated(conv(torch.cat(seen, dim=1))))
        return x + 0.2 * self.conv5(torch.cat(seen, dim=1))


class Block(nn.Module):
    def __init__(self, features, growth):
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (Dense(features, growth) for _ in range(3))

    def forward(self, x):
        return x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))


class Network(nn.Module):
    """Attributes are the names of the published checkpoints' tensors."""

    def __init__(self, scale, features=64, blocks=23, growth=32):
        super().__init__()
        self.side = {1: 4, 2: 2}.get(scale, 1)
        self.conv_first = convolution(3 * self.side**2, features)
        self.body = nn.Sequential(*(Block(features, growth) for _ in range(blocks)))
        self.conv_body = convolution(features, features)
        self.ups = [f"conv_up{i}" for i in ((1, 2, 3) if scale == 8 else (1, 2))]
        for name in (*self.ups, "conv_hr"):
            setattr(self, name, convolution(features, features))
        self.conv_last = convolution(features, 3)

    def forward(self, x):
        x = self.conv_first(functional.pixel_unshuffle(x, self.side))
        x = x + self.conv_body(self.body(x))
        for name in self.ups:
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = activated(getattr(self, name)(x))
        return self.conv_last(activated(self.conv_hr(x)))


def random_network(scale, seed=0, **sizes):
    """A network whose every layer matters, with outputs spread as those of images are.

    PyTorch's own weights give nearly grey images, whatever the blocks do.
    """
    generator = torch.Generator().manual_seed(seed)
    network = Network(scale, **sizes).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            spread = 1.5 * (1 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.1
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
        images = torch.rand((1, 3, 16, 16), generator=generator)
        network.conv_last.weight *= 0.25 / network(images).std()
        network.conv_last.bias += 0.5 - network(images).mean()
    return network

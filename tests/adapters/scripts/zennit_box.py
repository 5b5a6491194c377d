"""Bounds of the pixels in the first layer: the ready-made composite, and a composite put together from rules."""

import torch
from torch import nn
from zennit.attribution import Gradient
from zennit.composites import EpsilonGammaBox, SpecialFirstLayerMapComposite
from zennit.rules import Epsilon, Gamma, Pass, ZBox
from zennit.types import Activation, Convolution, Linear

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 6, 3),
    nn.ReLU(),
    nn.Conv2d(6, 6, 3),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(2),
    nn.Flatten(),
    nn.Linear(24, 5),
).eval()
data, target = torch.rand(2, 3, 12, 12) * 4 - 2, torch.eye(5)[[1, 3]]
low, high = torch.full((1, 3, 12, 12), -2.0), torch.full((1, 3, 12, 12), 2.0)

with Gradient(model, EpsilonGammaBox(low=low, high=high)) as attributor:
    ready_made = attributor(data, target)[1]

own = SpecialFirstLayerMapComposite(
    layer_map=[(Activation, Pass()), (Convolution, Gamma(0.25)), (Linear, Epsilon())],
    first_map=[(Convolution, ZBox(low, high))],
)
with own.context(model) as modified:
    inputs = data.clone().requires_grad_()
    output = modified(inputs)
    (by_hand,) = torch.autograd.grad(output, inputs, target)
result = {"ready-made": ready_made, "by hand": by_hand}

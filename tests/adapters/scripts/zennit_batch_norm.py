"""Batch norm merged into the layers before it by a canonizer, in a network with a residual sum."""

import torch
from torch import nn
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import EpsilonPlusFlat
from zennit.image import imgify

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
).eval()  # fmt: skip
for module in (model[1], model[4]):
    module.running_mean.normal_()
    module.running_var.uniform_(0.5, 2)
data, target = torch.randn(2, 3, 12, 12), torch.eye(4)[[0, 2]]

composite = EpsilonPlusFlat(canonizers=[SequentialMergeBatchNorm()])
with Gradient(model=model, composite=composite) as attributor:
    output, relevance = attributor(data, target)
heat = relevance.sum(1)
image = imgify(heat, symmetric=True, cmap="coldnhot", grid=(1, 2))
result = {"output": output, "relevance": relevance, "size": image.size}

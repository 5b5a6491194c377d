"""SmoothGrad without rules, and with guided backpropagation as its composite."""

import torch
from torch import nn
from zennit.attribution import Gradient, SmoothGrad
from zennit.composites import GuidedBackprop

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 25, 4)).eval()
data, target = torch.randn(2, 3, 12, 12), torch.eye(4)[[0, 2]]
with SmoothGrad(noise_level=0.1, n_iter=5, model=model) as attributor:
    output, smooth = attributor(data, target)
with Gradient(model=model, composite=GuidedBackprop()) as attributor:
    guided = attributor(data, target)[1]
result = {"output": output, "smooth": smooth, "guided": guided}

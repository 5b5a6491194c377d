"""The squared forms of SmoothGrad, as tutorials on CIFAR and torchvision networks use them."""

import torch
from captum.attr import IntegratedGradients, NoiseTunnel
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 9, 10)).eval()
image, label = torch.rand(1, 3, 8, 8, requires_grad=True), torch.tensor([4])

ig = IntegratedGradients(model)
tunnel = NoiseTunnel(ig)
result = {}
for kind in ("smoothgrad_sq", "vargrad"):
    maps = tunnel.attribute(image, baselines=image * 0, target=label, nt_type=kind, nt_samples=5, stdevs=0.2, n_steps=8)
    result[kind] = maps.detach()

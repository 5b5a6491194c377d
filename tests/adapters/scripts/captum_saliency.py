"""Gradients with and without their sign; the last class, counted from the end."""

import captum.attr as attr
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 4)).eval()
rows = torch.randn(3, 6)
saliency = attr.Saliency(model)
result = {
    "unsigned": saliency.attribute(rows, target=1, abs=True),
    "signed": saliency.attribute(rows, target=1, abs=False),
    "last": saliency.attribute(rows, target=-1),
    "ig, last": attr.IntegratedGradients(model).attribute(rows, target=-1),
}

"""Integrated gradients and occlusion by Zennit's attributors, of the class that the model predicts."""

import torch
from torch import nn
from zennit.attribution import IntegratedGradients, Occlusion

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(600, 4)).eval()
data = torch.randn(2, 3, 12, 12)


def predicted(output):
    """The score of the class with the highest score."""
    return torch.eye(4)[output.argmax(1)] * output


with IntegratedGradients(model, attr_output=predicted, n_iter=10, baseline_fn=torch.zeros_like) as attributor:
    output, path = attributor(data)
with Occlusion(model, window=(6, 6), stride=(6, 6)) as attributor:
    _, windows = attributor(data, torch.eye(4)[[0, 1]])
result = {"output": output, "path": path, "windows": windows}

"""Healthy or ill: the map of class 1 ("ill") on X-ray-like images, its positive part as a heat map."""

import numpy as np
import torch
from captum.attr import GuidedBackprop, IntegratedGradients, Saliency
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 49, 2)).eval()
images = torch.rand(2, 1, 16, 16)
classes = model(images).argmax(1)


def heat(maps):
    """One number in [0, 1] per pixel."""
    summed = np.transpose(maps.squeeze(1).cpu().detach().numpy(), (0, 1, 2))
    positive = np.maximum(summed, 0)
    return positive / (positive.max() + 1e-9)


result = {
    "ig": heat(IntegratedGradients(model).attribute(images, baselines=images * 0, target=1)),
    "saliency": heat(Saliency(model).attribute(images, target=classes)),
    "guided": heat(GuidedBackprop(model).attribute(images, target=1)),
}

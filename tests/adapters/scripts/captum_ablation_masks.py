"""Superpixels switched off one after the other; groups that several inputs share; values given for what is off."""

import torch
from captum.attr import FeatureAblation
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 100, 5)).eval()
image = torch.rand(2, 3, 12, 12)
rows, columns = torch.meshgrid(torch.arange(12) // 4, torch.arange(12) // 4, indexing="ij")
superpixels = (rows * 3 + columns)[None, None]

ablation = FeatureAblation(model)
by_patch = ablation.attribute(image, target=torch.tensor([0, 4]), feature_mask=superpixels)
gray = ablation.attribute(image, baselines=0.5, target=0, feature_mask=superpixels, perturbations_per_eval=3)


def together(left, right):
    return model(left + 0.5 * right)


both = FeatureAblation(together).attribute(
    (image, image.flip(3)), target=1, feature_mask=(superpixels, superpixels + 9), baselines=(0.0, 0.5)
)
result = {"patches": by_patch, "gray": gray, "left": both[0], "right": both[1]}

"""Expected gradients against a distribution: black and white images, random samples of a loader, a layer."""

import numpy as np
import torch
from captum.attr import GradientShap, LayerGradientShap
from torch import nn

torch.manual_seed(0)
np.random.seed(0)
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
image = torch.rand(1, 3, 8, 8)
black_and_white = torch.cat([image * 0, image * 0 + 1])

shap = GradientShap(model)
maps, delta = shap.attribute(
    image, n_samples=10, stdevs=0.0001, baselines=black_and_white, target=3, return_convergence_delta=True
)
layer = LayerGradientShap(model, model[0]).attribute(image, torch.rand(4, 3, 8, 8), target=3, n_samples=4)
result = {"maps": maps, "delta": delta, "layer": layer}

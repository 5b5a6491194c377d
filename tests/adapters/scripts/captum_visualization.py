"""Maps drawn with Captum's own figures: a heat map, a blend, and a page of words."""

import matplotlib
import numpy as np
import torch
from captum.attr import IntegratedGradients, Occlusion
from captum.attr import visualization as viz
from torch import nn

matplotlib.use("Agg")
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
image, label = torch.rand(1, 3, 8, 8), 2
original = np.transpose(image[0].numpy(), (1, 2, 0))

maps = IntegratedGradients(model).attribute(image, target=label, n_steps=20)
drawn = np.transpose(maps[0].detach().numpy(), (1, 2, 0))
viz.visualize_image_attr(drawn, original, method="heat_map", sign="all", show_colorbar=True, use_pyplot=False)
viz.visualize_image_attr_multiple(
    drawn, original, ["original_image", "blended_heat_map"], ["all", "absolute_value"], use_pyplot=False
)
windows = Occlusion(model).attribute(image, target=label, sliding_window_shapes=(3, 2, 2), strides=(3, 2, 2))
figure, axes = viz.visualize_image_attr(
    np.transpose(windows[0].numpy(), (1, 2, 0)), original, method="heat_map", sign="all", use_pyplot=False, title="what"
)
result = {"ig": maps, "windows": windows, "panels": len(figure.axes)}

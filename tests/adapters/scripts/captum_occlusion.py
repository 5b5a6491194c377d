"""A gray window slides over an image; another one over an image and its depth at once."""

import torch
from captum.attr import Occlusion
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(16, 6)).eval()
image, depth = torch.rand(1, 3, 16, 16), torch.rand(1, 1, 16, 16)
label = model(image).argmax(1)

occlusion = Occlusion(model)
windows = occlusion.attribute(
    image, target=label, strides=(3, 4, 4), sliding_window_shapes=(3, 6, 6), baselines=0, perturbations_per_eval=4
)
both = Occlusion(lambda a, b: model(a * b)).attribute(
    (image, depth), target=2, strides=(4, 8), sliding_window_shapes=((3, 8, 8), (1, 8, 8))
)
result = {"windows": windows, "image": both[0], "depth": both[1]}

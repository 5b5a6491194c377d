"""A channel seen through a small network that draws the image (CPPN), optimized with Adam."""

import torch
from lucent.optvis import objectives, param
from lucent.optvis.render import render_vis
from torch import nn

torch.manual_seed(0)
model = nn.Sequential()
for name, module in {"conv1": nn.Conv2d(3, 6, 5), "relu1": nn.ReLU(), "conv2": nn.Conv2d(6, 4, 5)}.items():
    model.add_module(name, module)
model.eval()


def adam(params):
    return torch.optim.Adam(params, lr=4.5e-3)


images = render_vis(
    model,
    objectives.channel("conv2", 1),
    lambda: param.cppn(32),
    optimizer=adam,
    transforms=[],
    thresholds=(1, 3),
    preprocess=False,
    fixed_image_size=32,
    progress=False,
    show_image=False,
)
result = {"first": images[0], "last": images[-1]}

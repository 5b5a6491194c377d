"""Several objectives: a neuron, two channels against each other, a direction, and interpolation in a batch."""

import torch
from lucent.optvis import objectives, param
from lucent.optvis.render import render_vis
from torch import nn

torch.manual_seed(0)
model = nn.Sequential()
for name, module in {
    "conv1": nn.Conv2d(3, 6, 5), "relu1": nn.ReLU(), "conv2": nn.Conv2d(6, 4, 5), "pool": nn.AdaptiveAvgPool2d(1),
    "flat": nn.Flatten(), "fc": nn.Linear(4, 3),
}.items():  # fmt: skip
    model.add_module(name, module)
model.eval()
wanted = {
    "channel": "conv2:1",
    "neuron": objectives.neuron("conv1", 2),
    "both": objectives.channel("conv1", 0) - 0.5 * objectives.channel("conv2", 3),
    "direction": objectives.direction("conv2", torch.randn(4)),
    "logit": objectives.channel("fc", 2),
    "joint": objectives.Objective.sum([objectives.channel("conv1", 1), objectives.channel("conv2", 2, batch=0)]),
}
result = {}
for name, objective in wanted.items():
    torch.manual_seed(0)
    images = render_vis(
        model, objective, lambda: param.image(24), transforms=[], thresholds=(2,), preprocess=False,
        fixed_image_size=24, progress=False, show_image=False,
    )  # fmt: skip
    result[name] = images[-1]

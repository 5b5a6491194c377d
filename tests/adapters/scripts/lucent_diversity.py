"""Four pictures of one channel that should differ: diversity among the images of a batch."""

import torch
from lucent.optvis import objectives, param, transform
from lucent.optvis.render import render_vis
from torch import nn

torch.manual_seed(0)
model = nn.Sequential()
for name, module in {"conv1": nn.Conv2d(3, 6, 5), "relu1": nn.ReLU(), "conv2": nn.Conv2d(6, 4, 5)}.items():
    model.add_module(name, module)
model.eval()

objective = objectives.channel("conv2", 2) - 1e2 * objectives.diversity("conv1")
images = render_vis(
    model,
    objective,
    lambda: param.image(40, batch=4, fft=True, decorrelate=True),
    transforms=[transform.pad(2), transform.jitter(2)],
    thresholds=(3,),
    preprocess=False,
    fixed_image_size=40,
    progress=False,
    show_image=False,
)
result = {"four": images[-1]}

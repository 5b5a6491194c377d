"""Every name of captum.attr at once, as toolkits import it; one method after the other on the same batch."""

import torch
from captum.attr import *  # noqa: F403
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
x_batch, y_batch = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])

result = {}
for method in (Saliency, IntegratedGradients, InputXGradient, DeepLift, GuidedBackprop, Deconvolution):  # noqa: F405
    maps = method(model).attribute(x_batch, target=y_batch)
    result[method.__name__.removeprefix("Absence")] = maps.detach().cpu().numpy()
assert isinstance(Saliency(model), GradientAttribution)  # noqa: F405
summary = Summarizer([Mean(), StdDev()])  # noqa: F405
summary.update(Saliency(model).attribute(x_batch, target=y_batch))  # noqa: F405
result["mean"] = summary.summary["mean"]

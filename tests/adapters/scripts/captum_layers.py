"""A tour of the layer methods on one convolution, and their maps brought to the size of the image."""

import torch
from captum.attr import (
    InternalInfluence,
    LayerActivation,
    LayerAttribution,
    LayerConductance,
    LayerDeepLift,
    LayerFeatureAblation,
    LayerGradCam,
    LayerGradientXActivation,
)
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 25, 4)
).eval()
image, layer = torch.rand(2, 3, 16, 16), model[3]
target = torch.tensor([1, 3])

cam = LayerGradCam(model, layer).attribute(image, target=target, relu_attributions=True)
result = {
    "conductance": LayerConductance(model, layer).attribute(image, target=target, n_steps=10),
    "activation": LayerActivation(model, layer).attribute(image),
    "cam": LayerAttribution.interpolate(cam, (16, 16)),
    "influence": InternalInfluence(model, layer).attribute(image, target=target, n_steps=10),
    "gradient": LayerGradientXActivation(model, layer).attribute(image, target=target),
    "deep lift": LayerDeepLift(model, layer).attribute(image, baselines=image * 0, target=target),
    "ablation": LayerFeatureAblation(model, layer).attribute(
        image, target=1, layer_mask=torch.arange(6).reshape(1, 6, 1, 1).expand(1, 6, 5, 5)
    ),
}

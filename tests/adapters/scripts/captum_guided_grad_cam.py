"""Guided Grad-CAM and its two halves, deconvolution beside them."""

import torch
from captum.attr import Deconvolution, GuidedBackprop, GuidedGradCam, LayerGradCam, NeuronDeconvolution
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 4, 3),
    nn.ReLU(),
    nn.Conv2d(4, 4, 3),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(2),
    nn.Flatten(),
    nn.Linear(16, 5),
).eval()
image, last = torch.rand(1, 3, 12, 12), model[2]
label = model(image).argmax(1)
result = {
    "guided cam": GuidedGradCam(model, last).attribute(image, target=label),
    "guided": GuidedBackprop(model).attribute(image, target=label),
    "cam": LayerGradCam(model, last).attribute(image, target=label, relu_attributions=True),
    "deconvolution": Deconvolution(model).attribute(image, target=label),
    "neuron": NeuronDeconvolution(model, last).attribute(image, (0, 2, 2)),
}

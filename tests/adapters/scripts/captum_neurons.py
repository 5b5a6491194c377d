"""What drives one hidden neuron? Five methods on a channel's position of a convolution."""

import torch
from captum.attr import (
    NeuronConductance,
    NeuronDeepLift,
    NeuronFeatureAblation,
    NeuronGradient,
    NeuronGuidedBackprop,
    NeuronIntegratedGradients,
)
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(3 * 16, 4)).eval()
images, layer, where = torch.rand(2, 1, 8, 8), model[2], (1, 2, 2)
result = {
    "gradient": NeuronGradient(model, layer).attribute(images, where),
    "ig": NeuronIntegratedGradients(model, layer).attribute(images, where, n_steps=10),
    "guided": NeuronGuidedBackprop(model, layer).attribute(images, where),
    "deep lift": NeuronDeepLift(model, layer).attribute(images, where),
    "ablation": NeuronFeatureAblation(model, layer).attribute(images, where, perturbations_per_eval=8),
    "summed": NeuronGradient(model, layer).attribute(images, lambda h: h[:, 1].sum((1, 2))),
    "conductance": NeuronConductance(model, layer).attribute(images, where, target=2, n_steps=10),
}

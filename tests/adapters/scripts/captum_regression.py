"""Prices of houses, one number per row: the same columns by four methods, side by side."""

import torch
from captum.attr import DeepLift, FeatureAblation, GradientShap, IntegratedGradients, NoiseTunnel
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1)).eval()
train, test = torch.randn(40, 5), torch.randn(12, 5)

ig = IntegratedGradients(model)
result = {
    "ig": ig.attribute(test, n_steps=50),
    "ig with noise": NoiseTunnel(ig).attribute(test, nt_samples=4, stdevs=0.01),
    "deep lift": DeepLift(model).attribute(test),
    "gradient shap": GradientShap(model).attribute(test, train, n_samples=10),
    "ablation": FeatureAblation(model).attribute(test),
}
result = {name: maps.detach().sum(0) / maps.detach().abs().sum() for name, maps in result.items()}

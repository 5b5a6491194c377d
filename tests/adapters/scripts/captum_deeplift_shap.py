"""DeepLift against one baseline and DeepLiftShap against a distribution of them, with their deltas."""

import torch
from captum.attr import DeepLift, DeepLiftShap, LayerDeepLiftShap
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 4)).eval()
images, background, target = torch.rand(2, 1, 8, 8), torch.rand(5, 1, 8, 8), torch.tensor([0, 2])

lift, delta = DeepLift(model).attribute(images, images * 0 + 0.5, target=target, return_convergence_delta=True)
shap, deltas = DeepLiftShap(model).attribute(images, background, target=target, return_convergence_delta=True)
layer = LayerDeepLiftShap(model, model[0]).attribute(images, background, target=target)
result = {"lift": lift, "delta": delta, "shap": shap, "deltas": deltas, "layer": layer}

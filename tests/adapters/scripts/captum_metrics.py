"""Infidelity and sensitivity of two methods, of the class that was asked for."""

import torch
from captum.attr import IntegratedGradients, Saliency
from captum.metrics import infidelity, infidelity_perturb_func_decorator, sensitivity_max
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 12), nn.Softplus(), nn.Linear(12, 3)).eval()
rows, target = torch.rand(4, 6), torch.tensor([0, 1, 2, 0])


@infidelity_perturb_func_decorator(False)
def disturb(inputs, baselines=None):
    return inputs - torch.randn_like(inputs) * 0.05


result = {}
for name, method in {"ig": IntegratedGradients(model), "saliency": Saliency(model)}.items():
    maps = method.attribute(rows, target=target)
    result[f"{name}, infidelity"] = infidelity(model, disturb, rows, maps, target=target, n_perturb_samples=4)
    result[f"{name}, sensitivity"] = sensitivity_max(method.attribute, rows, target=target, n_perturb_samples=3)
    result[name] = maps

"""KernelShap: a table with several classes, and one probability-like score without a class axis."""

import torch
from captum.attr import KernelShap
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
rows = torch.randn(2, 4)
shap = KernelShap(model)
result = {
    "class 1": shap.attribute(rows, target=1, n_samples=40),
    "grouped": shap.attribute(rows, baselines=1.0, target=1, feature_mask=torch.tensor([[0, 0, 1, 2]]), n_samples=40),
}

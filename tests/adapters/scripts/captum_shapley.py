"""Shapley values of a small table, sampled and exact, with groups of columns."""

import torch
from captum.attr import ShapleyValues, ShapleyValueSampling
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(5, 10), nn.ReLU(), nn.Linear(10, 3)).eval()
rows, groups = torch.randn(3, 5), torch.tensor([[0, 0, 1, 2, 2]])
target = torch.tensor([0, 2, 1])

sampling = ShapleyValueSampling(model)
result = {
    "sampled": sampling.attribute(rows, target=target, n_samples=4),
    "grouped": sampling.attribute(rows, target=target, feature_mask=groups, n_samples=3, perturbations_per_eval=2),
    "exact": ShapleyValues(model).attribute(rows, target=target, feature_mask=groups),
}

"""One number of a whole data set, columns switched off in all of its batches."""

import torch
from captum.attr import DataLoaderAttribution, FeatureAblation
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)).eval()
loader = DataLoader(TensorDataset(torch.randn(12, 4), torch.randn(12, 1)), batch_size=4)


def error(inputs, labels):
    return ((model(inputs) - labels) ** 2).detach()


over_data = DataLoaderAttribution(FeatureAblation(error))
columns = over_data.attribute(loader, input_roles=(0, 1), to_metric=lambda errors: errors.mean(0, keepdim=True))
result = {"columns": columns}

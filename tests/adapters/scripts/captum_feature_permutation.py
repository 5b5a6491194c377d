"""How much the loss of a batch grows when one column is shuffled: one number for the whole batch."""

import torch
from captum.attr import FeatureAblation, FeaturePermutation
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
rows, labels = torch.randn(32, 6), torch.randint(0, 3, (32,))


def loss(inputs):
    """[] the mean loss of the batch."""
    return nn.functional.cross_entropy(model(inputs), labels)


result = {
    "loss": FeaturePermutation(loss).attribute(rows),
    "loss, columns off": FeatureAblation(loss).attribute(rows),
    "class 1": FeaturePermutation(model).attribute(rows, target=1),
}

"""Does the concept "stripes" raise class 0? Concept activation vectors with a layer method of captum.attr."""

import tempfile

import torch
from captum.attr import LayerIntegratedGradients
from captum.concept import TCAV, Concept
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False)).eval()
model[0].weight.data = torch.eye(6)
model[2].weight.data = torch.tensor([[1.0, -1, 0, 0, 0, 0], [-1, 1, 0, 0, 0, 0], [-9.0] * 6])


def images(feature):
    """Eight batches in which one feature is strong."""
    return [torch.rand(4, 6) + 2 * torch.eye(6)[feature] for _ in range(8)]


stripes, noise = Concept(0, "stripes", images(0)), Concept(1, "noise", images(1))
method = LayerIntegratedGradients(model, None, multiply_by_inputs=False)
zebras = torch.rand(20, 6) + torch.tensor([1.0, 0, 0, 0, 0, 0])
with tempfile.TemporaryDirectory() as folder:
    tcav = TCAV(model, ["0"], layer_attr_method=method, save_path=folder)
    scores = tcav.interpret(zebras, [[stripes, noise]], target=0, n_steps=5)
found = next(iter(scores.values()))["0"]
result = {"sign count": found["sign_count"], "magnitude": found["magnitude"]}

"""Rules by the names of modules, one for every layer, in Zennit's own map of names."""

import torch
from torch import nn
from zennit.attribution import Gradient
from zennit.composites import NameMapComposite
from zennit.rules import Epsilon, Gamma, ZPlus

torch.manual_seed(0)
model = nn.Sequential()
for name, module in {
    "conv1": nn.Conv2d(3, 6, 3), "relu1": nn.ReLU(), "pool1": nn.MaxPool2d(2), "flat": nn.Flatten(),
    "fc1": nn.Linear(6 * 49, 16), "relu2": nn.ReLU(), "fc2": nn.Linear(16, 5),
}.items():  # fmt: skip
    model.add_module(name, module)
model.eval()
data, target = torch.randn(2, 3, 16, 16), torch.eye(5)[[1, 3]]

composite = NameMapComposite([(["conv1"], ZPlus()), (["fc1"], Gamma(0.25)), (["fc2"], Epsilon())])
with Gradient(model=model, composite=composite) as attributor:
    output, relevance = attributor(data, target)
result = {"output": output, "relevance": relevance}

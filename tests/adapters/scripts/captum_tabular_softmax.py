"""A table of passengers, two classes behind a softmax: which columns speak for survival?"""

import torch
from captum.attr import IntegratedGradients, LayerConductance, NeuronConductance
from torch import nn

torch.manual_seed(0)
columns = ["age", "siblings", "fare", "female", "class 1", "class 2"]
model = nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 2), nn.Softmax(dim=1))
rows, survived = torch.rand(80, 6), torch.randint(0, 2, (80,))
optimizer = torch.optim.Adam(model.parameters(), 0.05)
for _ in range(20):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(rows), survived).backward()
    optimizer.step()

test = torch.rand(7, 6, requires_grad=True)
ig = IntegratedGradients(model)
maps, delta = ig.attribute(test, target=1, return_convergence_delta=True)
importance = dict(zip(columns, maps.detach().numpy().mean(axis=0), strict=True))

conductance = LayerConductance(model, model[1]).attribute(test, target=1)
neuron = NeuronConductance(model, model[1]).attribute(test, neuron_selector=3, target=1)
result = {"maps": maps, "delta": delta, "conductance": conductance, "neuron": neuron, "importance": importance["fare"]}

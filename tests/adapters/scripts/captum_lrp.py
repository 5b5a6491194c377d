"""Layer-wise relevance propagation with the default rules, with rules by hand, and at a layer."""

import torch
from captum.attr import LRP, LayerLRP
from captum.attr._utils.lrp_rules import EpsilonRule, GammaRule
from torch import nn

torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.pool = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2)
        self.fc1, self.relu2, self.fc2 = nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3)

    def forward(self, x):
        hidden = self.pool(self.relu(self.conv(x)))
        return self.fc2(self.relu2(self.fc1(hidden.view(-1, 36))))


model = Net().eval()
images, target = torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
plain = LRP(model).attribute(images, target=target)

model.conv.rule = GammaRule()
model.fc1.rule = model.fc2.rule = EpsilonRule()
by_hand, delta = LRP(model).attribute(images, target=target, return_convergence_delta=True)
layer = LayerLRP(model, model.pool).attribute(images, target=target)
result = {"plain": plain, "by hand": by_hand, "delta": delta, "layer": layer}

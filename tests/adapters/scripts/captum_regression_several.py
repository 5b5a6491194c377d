"""Three quantities from one sensor reading: which channels drive each of them?"""

import captum.attr as attr
import torch
from torch import nn

torch.manual_seed(1)
quantities = ("temperature", "pressure", "flow")
model = nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 3)).eval()
readings = torch.randn(6, 4)

result = {}
for number, name in enumerate(quantities):
    maps = attr.IntegratedGradients(model).attribute(readings, baselines=readings.mean(0, keepdim=True), target=number)
    result[name] = maps
    result[f"{name}, ablated"] = attr.FeatureAblation(model).attribute(readings, target=number)

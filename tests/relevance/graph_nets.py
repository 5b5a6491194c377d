"""Small networks from functions, and the check that every comparison must pass. `import graph_nets`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.relevance import Relevance, relevance

D = torch.float64


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def net(*layers: nn.Module, seed: int = 0) -> nn.Module:
    model = nn.Sequential(*layers).to(D).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.5, generator=generator)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return model


class Call(nn.Module):
    """A forward from a function, with some weights."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4).to(D), nn.Linear(4, 4).to(D)
        generator = torch.Generator().manual_seed(5)
        for parameter in self.parameters():
            parameter.data.normal_(generator=generator)
        self.function = function
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


def check(model: Any, x: Any, r: Any, output: Any = 0, **settings: Any) -> Relevance:
    """Conserved, antisymmetric to the bit, and the model's own output to the bit."""
    found = relevance(model, x, r, output, **settings)
    back = relevance(model, r, x, output, **settings)
    for one, other in zip(tensors(found.attribution), tensors(back.attribution), strict=True):
        assert torch.equal(one, -other)
    samples = len(found.output)
    total = sum((one.reshape(samples, -1).sum(1) for one in tensors(found.attribution)), torch.zeros(samples, dtype=D))
    gross = sum(float(one.abs().sum()) for one in tensors(found.attribution))
    assert float((total - found.difference[0]).abs().max()) <= 1e-12 * max(gross, 1)
    return found


def tensors(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    return [v for v in (values.values() if isinstance(values, dict) else values) if v is not None]

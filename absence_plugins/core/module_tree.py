"""The modules of a model and what they hold, in one walk: what every call checks must cost little on a small network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn


def list_modules(model: Any) -> list[nn.Module]:
    """The modules of a model (or of the model whose method it is), each once; none of a plain function.

    As ``model.modules()`` without their order, at a fifth of the time.

    >>> len(list_modules(nn.Sequential(nn.Linear(1, 1), nn.ReLU())))
    3
    """
    model = getattr(model, "__self__", model)  # model.forward
    if not isinstance(model, nn.Module):
        return []
    modules, known = [model], {id(model)}
    for module in modules:  # grows
        if module._modules:
            for child in module._modules.values():
                if child is not None and id(child) not in known:
                    known.add(id(child))
                    modules.append(child)
    return modules


def list_parameters(modules: Iterable[nn.Module]) -> list[Tensor]:
    """The parameters that modules hold themselves; one that several hold comes several times.

    >>> len(list_parameters([nn.Linear(1, 1), nn.ReLU()]))
    2
    """
    return [tensor for module in modules for tensor in module._parameters.values() if tensor is not None]

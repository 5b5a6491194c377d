"""The scores in what a model returns: Zennit's attributors take a tensor, many models return a dictionary or a
dataclass. And the explained ones among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.core.outputs import check_explained
from absence_plugins.core.scores import logits_of


@contextmanager
def scores_only(model: Any) -> Iterator[None]:
    """In this block the model returns its scores, where it returns an object that holds them (``logits``, ``out``).

    Raises (in the model's forward):
        ValueError: it cannot be told which are the scores; the fields are named.

    >>> import torch
    >>> class Named(nn.Linear):
    ...     def forward(self, x: Tensor) -> dict[str, Tensor]:
    ...         return {"logits": super().forward(x)}
    >>> net = Named(2, 3)
    >>> with scores_only(net):
    ...     tuple(net(torch.zeros(1, 2)).shape)
    (1, 3)
    """
    if not isinstance(model, nn.Module):  # Zennit takes functions, too
        yield
        return
    owner = get_ident()

    def scores(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor | None:
        if isinstance(output, Tensor) or get_ident() != owner:
            return None
        samples = next((len(part) for part in inputs if isinstance(part, Tensor) and part.dim()), None)
        return logits_of(output, samples=samples)

    handle = model.register_forward_hook(scores, prepend=True)  # in front of the rules' own
    try:
        yield
    finally:
        handle.remove()


def weighted(weights: Tensor, outputs: Tensor) -> Tensor:
    """weights * outputs, in which an output of weight 0 takes no part, whatever it is.

    >>> weighted(torch.tensor([1.0, 0.0]), torch.tensor([3.0, -torch.inf])).tolist()
    [3.0, 0.0]
    """
    return torch.where(weights == 0, torch.zeros_like(outputs), weights * outputs)


def check_values(weights: Tensor, outputs: Tensor) -> None:
    """Reject an explained output that is not finite; others may be what they are. Both [B, K, ...].

    Raises:
        ValueError: which output of which sample, and its value.
    """
    places = ((weights != 0) & ~torch.isfinite(outputs)).nonzero().tolist()
    named = {place[0]: place[1:] for place in reversed(places)}

    def word(sample: int) -> str:
        index = named.get(sample, [])
        return "the output" if not index else f"output {index[0] if len(index) == 1 else tuple(index)}"

    check_explained(weighted(weights, outputs).reshape(len(outputs), -1).sum(1), word)

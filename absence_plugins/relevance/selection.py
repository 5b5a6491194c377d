"""Which output is explained."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.outputs import Output, class_sums, names_classes
from absence_plugins.core.scores import read_scores

Selection = None | int | tuple[int, ...] | list[int] | Tensor | Output | Callable[[Any], Tensor]


class Explained:
    """The explained output u of each sample, [B], as a differentiable function of the model's inputs.

    ``ending``: the softmax or sigmoid that was left out behind the logits in the last call.

    Raises (the function):
        TypeError, ValueError: the model puts out several tensors, or ``output`` does not fit them.
    """

    def __init__(self, forward: Callable[..., Any], output: Selection) -> None:
        self.forward, self.output, self.ending = forward, output, ""

    def __call__(self, *inputs: Any) -> Tensor:
        """Inputs to u."""
        if callable(self.output) and not isinstance(self.output, Tensor):
            u = self.output(self.forward(*inputs))
            if not isinstance(u, Tensor):
                raise TypeError(f"output must return a tensor with one value per sample, got {type(u).__name__}")
            return u.reshape(-1)
        logits, self.ending = read_scores(lambda: self.forward(*inputs))
        return _selected(logits, self.output)


def _selected(logits: Tensor, output: Any) -> Tensor:
    if isinstance(output, Output):
        return output.values(logits)
    if logits.dim() == 0:
        logits = logits.reshape(1, 1)
    elif logits.dim() == 1:
        logits = logits.unsqueeze(1)
    if output is None:
        if logits[0].numel() != 1:
            raise ValueError(
                f"the model has outputs of shape {tuple(logits.shape)}: say which with output=, e.g. an index"
            )
        return logits.reshape(-1)
    if isinstance(output, Tensor) and output.is_floating_point():
        if output.shape not in (logits.shape, logits.shape[1:]):
            raise ValueError(
                f"weights of shape {tuple(output.shape)} do not fit outputs of shape {tuple(logits.shape)}"
            )
        return (logits * output.to(logits)).flatten(1).sum(1)
    return _indexed(logits, output)


def _whole(index: Any) -> int:
    """An index. Raises TypeError for a float, which is none even where it is whole, a boolean or a text."""
    if isinstance(index, bool) or not hasattr(index, "__index__"):
        raise TypeError(
            f"output must be an index, a tuple of indices or one per sample, got {index!r}; weights of all outputs are a "
            "tensor of floats"
        )
    return operator.index(index)


def _indexed(logits: Tensor, output: Any) -> Tensor:
    if logits.dim() > 3 and names_classes(output):
        logits = class_sums(logits)
    samples = len(logits)
    listed: Any = output.tolist() if hasattr(output, "tolist") else output
    if not isinstance(listed, list):
        listed = [listed] * samples
    entries = [tuple(map(_whole, entry)) if isinstance(entry, (tuple, list)) else (_whole(entry),) for entry in listed]
    if len(entries) == 1:
        entries = entries * samples
    if len(entries) != samples:
        raise ValueError(f"output names {len(entries)} indices for {samples} samples; pass one, or one per sample")
    for entry in entries:
        if len(entry) != logits.dim() - 1:
            raise ValueError(
                f"output={entry if len(entry) > 1 else entry[0]} must name one value of outputs {tuple(logits.shape)}"
            )
        if any(not -size <= index < size for index, size in zip(entry, logits.shape[1:], strict=True)):
            raise ValueError(f"output={entry} does not exist: the outputs have shape {tuple(logits.shape)}")
    places = torch.tensor(entries, device=logits.device).unbind(1)
    return logits[(torch.arange(samples, device=logits.device), *places)]

"""From Zennit's ``attr_output`` to the explained output, and ``nontarget(...)``, an ``attr_output`` of its own."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import torch
from torch import Tensor, nn
from zennit.attribution import Attributor
from zennit.core import BasicHook

from absence_plugins.core.targets import Choice, Nontarget, Target, as_columns, choose
from absence_plugins.zennit.pairing import hooks_on, output_weights

CALLER_DEPTH = 6  # frames between an attributor's forward and its attr_output


def nontarget(target: Target, select: Nontarget = "runner_up") -> NontargetOutput:
    """An ``attr_output`` for any Zennit attributor: the output that the input does *not* belong to.

    Content of x that holds the non-target down is what its unit encodes as absent: negative relevance. The seed is
    the right one for the composite at hand: the non-target's value for rules that divide by outputs (LRP: a seed of 1
    would flip the map's sign where the value is negative), 1 for gradients and for ``Absence*`` composites.

    Source: METHODS 1 and 2b.

    Args:
        target: the class of the inputs: an index, or one per sample [B].
        select: "runner_up" (the highest other output), "others" (their mean), a class, one per sample [B], or
            ``f(outputs, target) -> [B]``. Chosen from the outputs that the attributor hands over; within SmoothGrad
            and IntegratedGradients use the ``Absence*`` attributors, which choose once, on the real input.

    Raises:
        ValueError: when called: softmax outputs, classes that do not exist, a non-target that is the target.

    >>> outputs = torch.tensor([[3.0, 1.0, 2.0]])
    >>> nontarget(0)(outputs)
    tensor([[0., 0., 2.]])
    >>> nontarget(0, select=1)(outputs)
    tensor([[0., 1., 0.]])
    """
    return NontargetOutput(target, select)


class NontargetOutput:
    """What :func:`nontarget` returns: a function of the outputs [B, K, ...] to a seed of the same shape."""

    def __init__(self, target: Target, select: Nontarget) -> None:
        if isinstance(select, str) and select not in ("runner_up", "others"):
            raise ValueError(
                f"select={select!r} is not known: use 'runner_up', 'others', a class index, a tensor or a callable"
            )
        self.target, self.select = target, select

    def __repr__(self) -> str:
        return f"nontarget({self.target!r}, select={self.select!r})"

    def __call__(self, output: Tensor) -> Tensor:
        """The seed of the outputs [B, K, ...]."""
        values = output.detach()
        weights = choice_weights(choose(values, self.target, self.select), values)
        return weights * values if self._wants_value(output) else weights

    @staticmethod
    def _wants_value(output: Tensor) -> bool:
        """Whether the composite at hand divides by outputs. Without a calling attributor: unless it is one of ours."""
        if getattr(output.grad_fn, "takes_weights", False):
            return False
        frame, left = inspect.currentframe(), CALLER_DEPTH
        while left and frame is not None:
            caller = frame.f_locals.get("self")
            if isinstance(caller, Attributor):
                return divides_by_outputs(caller.model)
            frame, left = frame.f_back, left - 1
        return True


def divides_by_outputs(model: nn.Module) -> bool:
    """Whether rules on the model turn the output's value into relevance (LRP), rather than passing gradients on."""
    return any(isinstance(hook, BasicHook) for hook in hooks_on(model))


def choice_weights(choice: Choice, outputs: Tensor) -> Tensor:
    """A choice as weights on the outputs: [B, K, ...], zero but for what is explained."""
    columns = as_columns(outputs)
    weights = torch.zeros_like(columns)
    index = choice.index.tolist() if isinstance(choice.index, Tensor) else choice.index
    for row, entry in enumerate(index):
        first, *rest = entry if isinstance(entry, tuple) else (entry,)
        if choice.weights is None:
            weights[(row, first, *rest)] = 1
        else:
            weights[(row, slice(None), *rest)] = choice.weights[first].to(weights)
    return weights.view_as(outputs)


def explained_weights(seed: Any, outputs: Tensor) -> Tensor:
    """What a seed in Zennit's manner asks for, for every sample: weights of the shape of the outputs.

    Raises:
        TypeError: it is not a tensor.
        ValueError: it has another shape, or asks for nothing.
    """
    if not isinstance(seed, Tensor):
        raise TypeError(f"attr_output must be a tensor, or a function that returns one, got {type(seed).__name__}")
    try:
        seed = seed.detach().to(outputs).expand_as(outputs)
    except RuntimeError:
        raise ValueError(
            f"attr_output of shape {tuple(seed.shape)} does not fit outputs of shape {tuple(outputs.shape)}; "
            "pass one row for all samples, or one per sample"
        ) from None
    weights = output_weights(seed, outputs)
    empty = (weights == 0).reshape(len(weights), -1).all(1)
    if bool(empty.any()) and not bool((outputs == 0).reshape(len(outputs), -1).any(1)[empty].all()):
        raise ValueError(
            f"attr_output names no output for sample {int(empty.nonzero()[0])}: all its entries are 0; "
            "pass torch.eye(K)[[k]] for output k"
        )
    return weights


def named_target(weights: Tensor, purpose: str) -> Literal[0] | list[Any]:
    """The one output that each sample's weights name, as ``target`` for the choice of a non-target.

    Raises:
        ValueError: they name several.
    """
    if weights.dim() == 1:
        return 0
    targets: list[Any] = []
    for row, sample in enumerate(weights):
        places = sample.nonzero()
        if len(places) != 1:
            raise ValueError(
                f"attr_output names {len(places)} outputs of sample {row}, but {purpose} needs one target per sample; "
                "pass torch.eye(K)[[k]]"
            )
        place = places[0].tolist()
        targets.append(place[0] if len(place) == 1 else tuple(place))
    return targets

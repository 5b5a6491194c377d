"""The explained unit of a check, however it was named: a logit, one per sample, a ``Unit``, ``Direction`` or
``Output``, or a callable.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from absence_plugins.core.direction import Direction
from absence_plugins.core.hooks import evaluating, quiet_forward
from absence_plugins.core.kinds import Kind
from absence_plugins.core.outputs import Output, as_columns, check_logits, class_scores
from absence_plugins.core.references import ReferenceSet
from absence_plugins.core.scales import check_scales, measure_scale
from absence_plugins.core.scores import announce, run_scores
from absence_plugins.core.targets import count_index
from absence_plugins.core.units import Unit
from absence_plugins.methods.faithfulness.claims import Value


def resolved(unit: Any, samples: int) -> Any:
    """A logit's number as a tensor [N]; hidden units, directions, outputs and callables as they are.

    Raises:
        ValueError: what names no unit, another number of units than samples.

    >>> resolved(2, 3), resolved(Unit("", 1), 2)
    (tensor([2, 2, 2]), tensor([1, 1]))
    """
    if isinstance(unit, (Direction, Output)):
        return unit
    if isinstance(unit, Unit):
        if unit.layer or unit.position is not None:
            return unit
        unit = unit.index
    if callable(unit) and not isinstance(unit, Tensor):
        return unit
    known = isinstance(unit, (int, np.integer, np.ndarray, list, tuple, Tensor)) and not isinstance(unit, bool)
    try:
        index = torch.as_tensor(unit).cpu() if known else None
    except (TypeError, ValueError, RuntimeError):
        index = None
    if index is None or index.is_floating_point() or index.dtype == torch.bool or index.dim() > 1:
        raise ValueError(
            f"unit={unit!r} must be a logit's number, one per sample, a Unit, Direction or Output, or a callable"
        )
    index = index.long()
    if index.dim() == 0 or len(index) == 1:
        return index.reshape(1).expand(samples)
    if len(index) != samples:
        raise ValueError(f"{len(index)} units for {samples} samples; pass one per sample, or one for all")
    return index


def unit_value(model: Any, unit: Any, x: Tensor) -> Value:
    """The unit's value as a function of inputs and of the samples they come from; ``unit`` as :func:`resolved` gives
    it.

    One output z counts as two: 0 is z, 1 is -z. Of outputs [N, K, H, W] a unit is the sum of its logits over the image.

    Raises:
        ValueError: a layer or a logit that does not exist, outputs that are probabilities.
    """
    if isinstance(unit, (Unit, Direction)):
        unit.at.module(model)
        return lambda images, samples: unit.values(model, images)
    if not isinstance(unit, (Tensor, Output)):
        return lambda images, samples: unit(images.clone())

    def scores_of(images: Tensor) -> Tensor:
        return _scores(model, images)

    def outputs_of(images: Tensor) -> Tensor:
        outputs = class_scores(scores_of(images))
        return torch.cat([outputs, -outputs], 1) if outputs.shape[1] == 1 else outputs

    with evaluating(model) if isinstance(model, nn.Module) else torch.no_grad(), quiet_forward([x]):
        outputs = outputs_of(x[:8])
        announce(run_scores(model, (x[:8],), samples=len(x[:8]))[1], stacklevel=3)
        # token ids are no numbers to compute with
        check_logits(
            scores_of(x[:8]), lambda: scores_of(x[:8] * 0.37 + 0.21 if x.is_floating_point() else x[:8].flip(1))
        )
    if isinstance(unit, Output):
        return lambda images, samples: unit.of_samples(samples).values(scores_of(images))
    if outputs.dim() != 2:
        raise ValueError(
            f"the model has outputs of shape {tuple(outputs.shape[1:])}; pass as unit a callable from inputs to values "
            "[N]"
        )
    index = _counted(unit, outputs.shape[1])
    return lambda images, samples: outputs_of(images).gather(1, index.to(images.device)[samples, None])[:, 0]


def _counted(unit: Tensor, outputs: int) -> Tensor:
    """Logits [N] that count from the start. Raises ValueError for those that do not exist."""
    found = [count_index(index, outputs) for index in unit.tolist()]
    for index, place in zip(unit.tolist(), found, strict=True):
        if place is None:
            raise ValueError(
                f"unit={index} does not exist: the model has {outputs} outputs, from 0 to {outputs - 1}, or from -1 to "
                f"-{outputs} counted from the end"
            )
    return torch.tensor(found, device=unit.device)


def _scores(model: Any, images: Tensor) -> Tensor:
    return as_columns(run_scores(model, (images,), samples=len(images))[0])


def class_of(model: Any, unit: Any, x: Tensor) -> Tensor | None:
    """The class [N] among a ReferenceSet's labels that the unit stands for; None where it is no logit.

    Of a single output z class 1 is that of z (unit 0), class 0 that of -z (unit 1).

    >>> class_of(nn.Linear(2, 1), torch.tensor([0, 1]), torch.zeros(2, 2)).tolist()
    [1, 0]
    """
    if not isinstance(unit, Tensor):
        return None
    with evaluating(model) if isinstance(model, nn.Module) else torch.no_grad(), quiet_forward([x]):
        outputs = class_scores(_scores(model, x[:1])).shape[1]
    return 1 - _counted(unit, 2) if outputs == 1 else _counted(unit, outputs)


def nearest(reference: Any, x: Tensor, classes: Tensor | None, kind: Kind | None = None) -> Tensor:
    """References [N, k, ...]: as given, or the nearest of a set (of its contrast class, or any but ``classes`` [N]).

    Raises:
        TypeError: neither a tensor nor a set.
        ValueError: none, or of another shape than x.
    """
    if reference is None:
        raise ValueError("view='reference' needs reference=..., a ReferenceSet or real inputs that have what x lacks")
    if isinstance(reference, ReferenceSet):
        found = reference.nearest(x, classes)
        assert isinstance(found, Tensor)
        return found
    if not isinstance(reference, Tensor):
        raise TypeError(f"reference must be a ReferenceSet or a tensor, got {type(reference).__name__}")
    many = reference[:, None] if reference.dim() == x.dim() else reference
    if many.dim() != x.dim() + 1 or many.shape[0] != len(x) or many.shape[2:] != x.shape[1:]:
        raise ValueError(
            f"reference has shape {tuple(reference.shape)}, x {tuple(x.shape)}; pass [N, ...] or [N, k, ...]"
        )
    check_scales([x], [measure_scale(many.flatten(0, 1), kind)], kind=kind)
    return many.detach().to(x)

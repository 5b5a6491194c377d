"""From a signed map to its two readings: evidence for what is there, evidence for what is missing."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from captum.attr import GradientAttribution
from torch import Tensor

from absence_plugins.captum.calls import expanded, leaves, unzip
from absence_plugins.captum.plan import Plan
from absence_plugins.core.hooks import keeping, quiet_forward
from absence_plugins.core.kinds import Kind, TextKind, sum_positive
from absence_plugins.core.maps import split_by_content, split_by_mask, tree_map


def is_gradient(method: Any) -> bool:
    """Whether the map is a gradient, not yet multiplied by a difference (``multiply_by_inputs=False``)."""
    return isinstance(method, GradientAttribution) and not method.multiplies_by_inputs


def kind_of(method: Any) -> Kind | None:
    """What the entries of the inputs are, if not pixels, as the references say it."""
    return None if method.reference is None else method.reference.kind


def content_parts(method: Any, plan: Plan, signed: Any, reference: tuple[Tensor, ...] | None) -> tuple[Any, Any]:
    """The map on the places where x has content, and on those where only the reference has; still signed.

    The two sum to the map. A gradient is multiplied by x - r first (at a layer, by the difference of its
    activations): where x lacks content, a negative gradient is what says that the absence raises the output. Of texts
    the places where both have padding or a special token are left out of the parts.
    """
    x = plan.real_repeated
    if reference is None:
        if method._traits.baselines != "baselines":
            raise ValueError(f"content is measured on images; pass reference= instead of {method._traits.baselines}")
        reference = expanded(plan.arguments["baselines"], x, paired=not method._traits.distribution)
        if reference is None:
            raise ValueError(
                "the absence part needs one baseline image per sample (or one for all); pass reference= for several"
            )
    blank = (0.0,) * len(x) if method.reference is None else method.reference.empty
    kind = kind_of(method)
    if kind is not None:
        lacking = kind.lacks(x[0], reference[0].to(x[0].dtype), blank[0])
        if _fits(method, signed, lacking) and not is_gradient(method):
            return _split_things(signed, lacking, _spoken(kind, x[0], reference[0]))
    empty = tuple(torch.as_tensor(value).to(part).expand_as(part) for value, part in zip(blank, x, strict=True))
    if method._has("attribute_to_layer_input"):
        with quiet_forward(x), keeping(plan.modules):
            levels = [method._activation(plan, images, plan.extra(1)) for images in (x, reference, empty)]
    else:
        levels = [parts if plan.is_tuple else parts[0] for parts in (x, reference, empty)]
        shapes = [part.shape for part in (signed if plan.is_tuple else (signed,))]
        if shapes != [part.shape for part in x]:
            raise ValueError(
                "the absence part needs maps of the input's shape; leave return_input_shape=True, or use "
                "evidence='signed'"
            )
    if is_gradient(method):
        signed = tree_map(lambda r, here, there: r * (here - there), signed, *levels[:2])
    if kind is not None and _fits(method, signed, lacking):
        return _split_things(signed, lacking, _spoken(kind, x[0], reference[0]))
    return unzip(tree_map(split_by_content, signed, *levels), signed)


def average_deltas(method: Any, deltas: list[Tensor]) -> Tensor:
    """The mean over the references; a class of which Captum returns one for each has its own form."""
    return torch.stack(deltas).mean(0)


def _fits(method: Any, signed: Any, lacking: Tensor) -> bool:
    """Whether the first axes of every map are the entries of the inputs. Of layers: tokens [B, T, D], of texts."""
    if method._has("attribute_to_layer_input"):
        is_text = isinstance(kind_of(method), TextKind)
        return is_text and all(part.dim() > 2 and part.shape[:2] == lacking.shape for part in leaves(signed))
    return all(part.shape[: lacking.dim()] == lacking.shape for part in leaves(signed))


def _spoken(kind: Kind, x: Tensor, reference: Tensor) -> Tensor | None:
    """Of texts the places [B, T] at which the text or the reference has a token that is not special; else None."""
    if not isinstance(kind, TextKind):
        return None
    return ~(kind.is_special(x) & kind.is_special(reference.to(x.dtype)))


def _split_things(signed: Any, lacking: Tensor, spoken: Tensor | None) -> tuple[Any, Any]:
    if spoken is not None:
        signed = tree_map(lambda r: split_by_mask(r, spoken)[1], signed)
    return unzip(tree_map(lambda r: split_by_mask(r, lacking), signed), signed)


def magnitudes(plan: Plan, signed: Any, present: Any, absent: Any, kind: Kind | None) -> tuple[Any, Any]:
    """Evidence for what is there and for what is missing, both >= 0.

    target: max(R, 0) on the presence and on the absence part. Non-target: max(R, 0), and max(-R, 0) as far
    as it is content of x (with references, not where only they have content: that is the non-target's own,
    missing). Noisy copies are averaged before the sign is read, or noise would pass for evidence. Of a kind of data the
    sign is that of a whole thing, such as a token: what its entries say against each other is no evidence.
    """
    positive = partial(sum_positive, kind=kind)
    signed, present, absent = (tree_map(lambda r: _over_copies(r, plan), tree) for tree in (signed, present, absent))
    if plan.is_blank:
        return tree_map(positive, signed), tree_map(torch.zeros_like, signed)
    if plan.view == "target":
        return tree_map(positive, present), tree_map(positive, absent)
    held = signed if present is None else present
    if isinstance(kind, TextKind) and present is not None:  # padding is no evidence
        signed = tree_map(torch.add, present, absent)
    return tree_map(positive, signed), tree_map(lambda r: positive(-r), held)


def _over_copies(signed: Tensor | None, plan: Plan) -> Tensor | None:
    """The mean over the noisy copies of each sample, once for every copy."""
    if signed is None or plan.copies == 1 or signed.shape[0] != plan.inputs[0].shape[0]:
        return signed
    return signed.reshape(-1, plan.copies, *signed.shape[1:]).mean(1).repeat_interleave(plan.copies, 0)

"""Calling a Captum class from the outside: arguments, forms of inputs and maps, its plain algorithm."""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from captum.attr import Attribution
from torch import Tensor, nn

from absence_plugins.captum.traits import ANNOUNCEMENTS
from absence_plugins.core.maps import tree_map
from absence_plugins.core.units import Layer

BATCH = "perturbations_per_eval"


@dataclass(frozen=True)
class Form:
    """What a host's method takes, without ``self``: read once per function, as ``inspect`` takes long.

    names: all that can be passed by position, in order; needed: those without a default; takes_all: also other
    keywords.
    """

    signature: inspect.Signature
    names: tuple[str, ...]
    needed: tuple[str, ...]
    known: frozenset[str]
    defaults: dict[str, Any]
    takes_all: bool

    @classmethod
    @lru_cache(maxsize=256)
    def of(cls, function: Callable[..., Any]) -> Form:
        """The form of a method, as its class has it."""
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())[1:]
        by_position = [one for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
        return cls(
            signature,
            tuple(one.name for one in by_position),
            tuple(one.name for one in by_position if one.default is one.empty),
            frozenset(one.name for one in parameters),
            {one.name: one.default for one in parameters if one.default is not one.empty},
            any(one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in parameters),
        )


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """A host's method without its usage logging: what Captum's classes call among themselves."""
    return getattr(function, "__wrapped__", function)


def bound_arguments(
    host: type[Attribution],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    optional: str | None,
    unsigned: str = "",
    automatic: str = "",
) -> dict[str, Any]:
    """All arguments of ``host.attribute`` by name, defaults filled in; ``optional`` may be missing.

    ``unsigned``, the argument that deletes the sign, is False unless the caller gives it; ``automatic`` is None.
    """
    form = Form.of(host.attribute)
    named = dict(zip(form.names, args, strict=False))
    if form.takes_all or len(args) > len(form.names) or named.keys() & kwargs or not kwargs.keys() <= form.known:
        bound = form.signature.bind_partial(None, *args, **kwargs)  # or its TypeError
        named = dict(list(bound.arguments.items())[1:])
        named.update(named.pop("kwargs", {}))
    else:
        named.update(kwargs)
    missing = [name for name in form.needed if name not in named]
    if missing and missing != [optional]:
        hint = "; baselines come from reference=ReferenceSet(...) where one is given" if "baselines" in missing else ""
        raise TypeError(f"{host.__name__}.attribute needs {' and '.join(missing)}{hint}")
    if unsigned:
        named.setdefault(unsigned, False)
    if automatic:
        named.setdefault(automatic, None)
    return form.defaults | named


def run_host(host_class: type[Attribution], instance: Any, call: Mapping[str, Any]) -> Any:
    """``host_class.attribute`` on an instance, with the arguments it knows; its own default for an automatic batch."""
    if call.get(BATCH, 1) is None:
        call = {name: value for name, value in call.items() if name != BATCH}
    form = Form.of(host_class.attribute)
    return plain(host_class.attribute)(
        instance, **{name: value for name, value in call.items() if form.takes_all or name in form.known}
    )


@contextmanager
def without_announcements() -> Iterator[None]:
    """In this block Captum says nothing about its bookkeeping."""
    with warnings.catch_warnings():
        for announcement in ANNOUNCEMENTS:
            warnings.filterwarnings("ignore", message=announcement)
        yield


def redirect(instance: Any, model: Any) -> None:
    """Let a (copied) attribution object explain another model."""
    instance.forward_func = model
    if hasattr(instance, "model"):
        instance.model = model
    if isinstance(getattr(instance, "ig", None), Attribution):  # LayerIntegratedGradients keeps its own
        instance.ig = copy.copy(instance.ig)
        instance.ig.forward_func = model


def resolve_layers(host: type[Attribution], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The constructor's arguments, with modules in place of layers given by name or as a ``Layer``; and these layers.

    Raises:
        ValueError: the model has no such layer.
    """
    bound = inspect.signature(host.__init__).bind_partial(instance, *args, **kwargs)
    given = bound.arguments.get("layer")
    layers = given if isinstance(given, list) else [given]
    if not all(isinstance(one, (str, Layer)) for one in layers):
        return args, kwargs, []
    model = next(iter(list(bound.arguments.values())[1:]))
    model = getattr(model, "__self__", model)
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"layer={given!r}: a layer's name needs a model that is a module, got {type(model).__name__}; pass the "
            "module"
        )
    named = [Layer.of(one) for one in layers if isinstance(one, (str, Layer))]
    modules = [one.module(model) for one in named]
    bound.arguments["layer"] = modules if isinstance(given, list) else modules[0]
    return bound.args[1:], bound.kwargs, named


def checked_inputs(inputs: Any) -> tuple[Tensor, ...]:
    """The inputs as a tuple of detached tensors (the user's own keep their flags and gradients)."""
    detached: list[Tensor] = []
    for number, part in enumerate(inputs if isinstance(inputs, tuple) else (inputs,)):
        if not isinstance(part, Tensor):
            raise TypeError(f"input {number} must be a tensor, got {type(part).__name__}")
        part = part.detach()
        detached.append(part)
        if part.dim() == 0 or part.shape[0] == 0:
            raise ValueError(f"input {number} is an empty batch of shape {tuple(part.shape)}; pass at least one sample")
        if part.shape[0] != detached[0].shape[0]:
            raise ValueError(
                f"input {number} has {part.shape[0]} samples, input 0 has {detached[0].shape[0]}; they must be the same"
            )
        if part.is_floating_point() and not is_finite(part):
            bad = (~torch.isfinite(part.flatten(1) if part.dim() > 1 else part[:, None])).any(1).nonzero()
            raise ValueError(
                f"sample {int(bad[0])} of input {number} holds NaN or infinite values; every map of it would too"
            )
    return tuple(detached)


def is_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite. A finite sum says so; one that is not may have overflowed.

    >>> is_finite(torch.tensor([3e38, 3e38])), is_finite(torch.tensor([0.0, -torch.inf]))
    (True, False)
    """
    return math.isfinite(values.sum().item()) or bool(torch.isfinite(values).all())


def extra_arguments(arguments: Mapping[str, Any]) -> tuple[Any, ...]:
    """Captum's ``additional_forward_args`` as a tuple."""
    extra = arguments.get("additional_forward_args")
    return () if extra is None else extra if isinstance(extra, tuple) else (extra,)


def select_neuron(activation: Any, selector: Any) -> Tensor:
    """The neurons' values [B] as Captum's ``neuron_selector`` picks them: index, tuple (slices sum), or callable."""
    if callable(selector):
        return selector(activation)
    index = selector if isinstance(selector, tuple) else (selector,)
    if isinstance(activation, tuple):
        raise ValueError(f"neuron_selector={selector!r} cannot pick from a layer with several outputs; pass a callable")
    try:
        chosen = activation[(slice(None), *index)]
    except IndexError:
        raise ValueError(
            f"neuron_selector={selector!r} does not exist in a layer of shape {tuple(activation.shape[1:])}"
        ) from None
    if chosen.dim() > 1 and not any(isinstance(part, slice) for part in index):
        raise ValueError(
            f"neuron_selector={selector!r} leaves {tuple(chosen.shape[1:])} neurons of shape "
            f"{tuple(activation.shape[1:])}; name one, or sum with slices"
        )
    return chosen.flatten(1).sum(1) if chosen.dim() > 1 else chosen


def is_reference(baselines: Any) -> bool:
    """Whether the caller's own baselines are images (a number, or a tensor of zeros, is a blank one)."""
    parts = baselines if isinstance(baselines, tuple) else (baselines,)
    return any(isinstance(part, Tensor) and part.dim() > 0 and bool((part != 0).any()) for part in parts)


def modules_of(model: Any) -> list[tuple[str, nn.Module]]:
    """The modules of a model (or of the model whose method it is), with their names; none of a plain function."""
    model = getattr(model, "__self__", model)
    return list(model.named_modules()) if isinstance(model, nn.Module) else []


def leaves(tree: Any) -> list[Any]:
    """The tensors of nested tuples and lists, in order."""
    return [leaf for part in tree for leaf in leaves(part)] if isinstance(tree, (tuple, list)) else [tree]


def unzip(pairs: Any, like: Any) -> tuple[Any, Any]:
    """From a tree (shaped like ``like``) of pairs to a pair of trees."""
    if not isinstance(like, (tuple, list)):
        return pairs
    split = [unzip(pair, part) for pair, part in zip(pairs, like, strict=True)]
    return type(like)(first for first, _ in split), type(like)(second for _, second in split)


def added(total: Any, tree: Any) -> Any:
    """A running sum of maps; None is the empty one."""
    return tree if total is None else tree_map(torch.add, total, tree)


def expanded(baselines: Any, inputs: tuple[Tensor, ...], *, paired: bool) -> tuple[Tensor, ...] | None:
    """The caller's baselines as one image per sample and input; None if they are not paired with the samples."""
    parts = baselines if isinstance(baselines, tuple) else (baselines,) * len(inputs)
    if any(callable(part) and not isinstance(part, Tensor) for part in parts):
        return None
    pairs = zip(parts, inputs, strict=True)  # a number in the input's own type: as float32 it is another one
    tensors = [torch.as_tensor(0 if part is None else part, dtype=own.dtype, device=own.device) for part, own in pairs]
    if any(
        part.dim() == own.dim() and part.shape[0] not in ((1, own.shape[0]) if paired else (1,))
        for part, own in zip(tensors, inputs, strict=True)
    ):
        return None
    return tuple(part.expand_as(own) for part, own in zip(tensors, inputs, strict=True))

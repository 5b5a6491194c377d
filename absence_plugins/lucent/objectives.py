"""Objectives that ask what a unit hates: Lucent's, minimized, on the value before the nonlinearity.

In Lucent an objective is a loss. ``absence_channel(layer, n)`` is the mean pre-activation of channel n, so rendering it
makes an image that drives the channel *down*; ``-absence_channel(layer, n)`` drives it up, also from below zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from lucent.optvis import objectives as host
from torch import Tensor, nn

from absence_plugins.lucent.layers import (
    LABELS,
    Activations,
    Preactivation,
    at_position,
    channel_axis,
    channels_last,
    warn_if_rectified,
)

Reader = Callable[[nn.Module, Tensor], Tensor]


@dataclass(frozen=True)
class Term:
    """One value that an objective drives: of which layer, how it is read ([B, ...] -> [B]), in which images, which way.

    ``sign``: +1 if rendering lowers the value, -1 if it raises it.
    """

    layer: str
    description: str
    read: Reader
    batch: int | None = None
    sign: float = 1.0

    def values(self, T: Any) -> Tensor:
        """The value of every image [B] (of one, with ``batch``)."""
        module = _ours(T).module(self.layer)
        value = self.read(module, T(Preactivation(self.layer)))
        return value if self.batch is None else value[self.batch : self.batch + 1]


class AbsenceObjective(host.Objective):
    """An objective of Lucent's that knows what it drives; its algebra (``+ - * /``) gives such objectives again.

    ``terms``: what is driven; ``same_start``: all images of the batch begin alike.

    >>> [term.sign for term in (absence_channel("conv1", 3) - 2 * absence_class(0)).terms]
    [1.0, -2.0]
    """

    def __init__(
        self,
        objective_func: Callable[[Any], Tensor],
        name: str = "",
        description: str = "",
        terms: tuple[Term, ...] = (),
        same_start: bool = False,
    ) -> None:
        super().__init__(objective_func, name, description)
        self.terms, self.same_start = terms, same_start

    def __add__(self, other: Any) -> AbsenceObjective:
        return self._with(super().__add__(other), 1.0, other)

    def __radd__(self, other: Any) -> AbsenceObjective:
        return self.__add__(other)

    def __sub__(self, other: Any) -> AbsenceObjective:
        return self + (-1 * other)

    def __rsub__(self, other: Any) -> AbsenceObjective:
        return (-1 * self) + other

    def __mul__(self, other: Any) -> AbsenceObjective:
        return self._with(super().__mul__(other), float(other), None)

    def __rmul__(self, other: Any) -> AbsenceObjective:
        return self.__mul__(other)

    def _with(self, made: Any, factor: float, other: Any) -> AbsenceObjective:
        """Lucent's result, with the terms of both sides."""
        own = tuple(
            Term(term.layer, term.description, term.read, term.batch, term.sign * factor) for term in self.terms
        )
        same_start = self.same_start or getattr(other, "same_start", False)
        return AbsenceObjective(
            made.objective_func,
            made.name,
            made.description,
            own + getattr(other, "terms", ()),
            same_start,
        )


def absence_channel(layer: str, n_channel: int, batch: int | None = None) -> AbsenceObjective:
    """Drive a channel down: the mean of its pre-activation over positions and images.

    loss = mean z[:, n], z the layer's value before its nonlinearity ([B, C], [B, C, H, W] or tokens [B, T, C]).
    Sign: lower is further down; of the rendered picture, what it shows is what the channel is held down by.

    Source: Olah et al., Distill 2017 (negative neurons), on pre-activations (docs/from-lucent.md).

    Args:
        layer: as Lucent names it (``layer1_0_bn2``), or with dots.
        n_channel: the channel.
        batch: only the image with this number; None: all.

    Raises:
        ValueError: when rendered: no such layer, channel or image, with what there is.

    >>> from absence_plugins.lucent import render_vis
    >>> net = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.ReLU())
    >>> net[0].weight.data = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)  # likes red
    >>> options = dict(thresholds=(8, 64), transforms=[], preprocess=False, fixed_image_size=32, progress=False)
    >>> early, late = render_vis(net, absence_channel("1", 0), **options)
    >>> bool(late[..., 0].mean() < early[..., 0].mean())  # red goes
    True
    """
    return _driven(
        layer,
        lambda m, z: _mean(_channel(m, z, n_channel)),
        batch,
        "Absence_Channel",
        n_channel,
    )


def absence_neuron(
    layer: str,
    n_channel: int,
    x: int | None = None,
    y: int | None = None,
    batch: int | None = None,
) -> AbsenceObjective:
    """Drive one position of a channel down, the center by default (as Lucent's ``neuron``); of tokens, number x.

    loss = z[:, n, y, x]; on a dense layer z[:, n]. Sign, errors and source as in :func:`absence_channel`.

    >>> absence_neuron("conv1", 3, x=2).description
    'Absence_Neuron [conv1, 3, 2, None]'
    """

    def read(module: nn.Module, value: Tensor) -> Tensor:
        return _select(at_position(module, value, x, y), n_channel)

    return _driven(layer, read, batch, "Absence_Neuron", n_channel, x, y)


def absence_direction(layer: str, direction: Tensor, batch: int | None = None) -> AbsenceObjective:
    """Turn a layer's pre-activations against a direction [C]: the mean cosine similarity over positions.

    Sign: -1 is exactly opposite. Errors and source as in :func:`absence_channel`.

    >>> absence_direction("conv1", torch.ones(8)).name
    'absence_direction'
    """
    vector = _vector(direction, "direction")
    return _driven(
        layer,
        lambda m, z: _mean(_cosine(channels_last(m, z), vector)),
        batch,
        "Absence_Direction",
        vector,
    )


def absence_direction_neuron(
    layer: str,
    direction: Tensor,
    x: int | None = None,
    y: int | None = None,
    batch: int | None = None,
) -> AbsenceObjective:
    """As :func:`absence_direction`, at one position, the center by default.

    >>> absence_direction_neuron("conv1", torch.ones(8)).name
    'absence_direction_neuron'
    """
    vector = _vector(direction, "direction")

    def read(module: nn.Module, value: Tensor) -> Tensor:
        return _cosine(at_position(module, value, x, y), vector)

    return _driven(layer, read, batch, "Absence_Direction_Neuron", vector, x, y)


def absence_channel_weight(layer: str, weight: Tensor, batch: int | None = None) -> AbsenceObjective:
    """Drive a weighted sum of channels down: mean over channels and positions of z times weight [C] (as Lucent's).

    >>> absence_channel_weight("conv1", torch.tensor([1.0, -1.0])).name
    'absence_channel_weight'
    """
    vector = _vector(weight, "weight")

    def read(module: nn.Module, value: Tensor) -> Tensor:
        placed = channels_last(module, value)
        return _mean(placed * _fitting(vector, placed))

    return _driven(layer, read, batch, "Absence_Channel_Weight", vector)


def absence_class(n_class: int, batch: int | None = None) -> AbsenceObjective:
    """Drive a logit down: what the class must not have.

    loss = logit of the class; of a model that ends in a softmax module, the value in front of it.

    Raises:
        ValueError: when rendered: no such class, or a softmax that is not a module.

    >>> absence_class(3).description
    'Absence_Class [3]'
    """

    def read(module: nn.Module, value: Tensor) -> Tensor:
        if value.dim() != 2:
            raise ValueError(f"the model puts out {tuple(value.shape)}, but absence_class needs logits [B, K]")
        return _select(value, n_class)

    made = _driven(LABELS, read, batch, "Absence_Class", n_class)
    made.description = f"Absence_Class [{n_class}]"
    return made


def absence_contrast(layer: str, n_channel: int, kind: str = "channel", **position: int) -> AbsenceObjective:
    """The same unit up in the first image and down in the second, from the same start.

    loss = -value(image 0) + value(image 1). ``render_vis`` gives it two images that begin alike.

    ``kind``: "channel" (its mean), "neuron" (one position, ``x=``, ``y=``), or "class" (a logit, for which the layer
    is of no effect). Raises ValueError for another one.

    >>> absence_contrast("conv1", 3).same_start
    True
    """
    kinds: dict[str, Callable[[int], AbsenceObjective]] = {
        "channel": lambda image: absence_channel(layer, n_channel, batch=image),
        "neuron": lambda image: absence_neuron(layer, n_channel, batch=image, **position),
        "class": lambda image: absence_class(n_channel, batch=image),
    }
    if kind not in kinds:
        raise ValueError(f"kind={kind!r} must be one of {', '.join(kinds)}")
    if position and kind != "neuron":
        raise ValueError(f"{', '.join(position)}: only a neuron has a position; use kind='neuron'")
    both = -kinds[kind](0) + kinds[kind](1)
    both.same_start = True
    both.name, both.description = (
        "absence_contrast",
        f"Absence_Contrast [{layer}, {n_channel}, {kind}]",
    )
    return both


contrast = absence_contrast

OBJECTIVES: dict[str, Callable[..., AbsenceObjective]] = {
    function.__name__: function
    for function in (
        absence_channel,
        absence_neuron,
        absence_direction,
        absence_direction_neuron,
        absence_channel_weight,
        absence_class,
        absence_contrast,
    )
}


def register() -> None:
    """Put the ``absence_*`` objectives into ``lucent.optvis.objectives``; again and again changes nothing.

    Raises:
        ValueError: a name there is already someone else's; nothing is registered then.

    >>> register()
    >>> host.absence_channel is absence_channel
    True
    >>> unregister()
    """
    taken = [name for name, made in OBJECTIVES.items() if getattr(host, name, made) is not made]
    if taken:
        raise ValueError(
            f"lucent.optvis.objectives already has {', '.join(taken)} from elsewhere; delete it there, or import ours from "
            "absence_plugins.lucent"
        )
    for name, made in OBJECTIVES.items():
        setattr(host, name, made)


def unregister() -> None:
    """Take them out again; what is not ours stays.

    >>> unregister()
    >>> hasattr(host, "absence_channel")
    False
    """
    for name, made in OBJECTIVES.items():
        if getattr(host, name, None) is made:
            delattr(host, name)


def as_objective(objective: Any) -> Any:
    """As Lucent: ``"layer:3"`` raises channel 3, objectives and functions stay; and ``"-layer:3"`` lowers it.

    Raises:
        ValueError: a text of another form.

    >>> as_objective("-conv1:3").description
    'Absence_Channel [conv1, 3]'
    """
    if not isinstance(objective, str):
        if not callable(objective):
            raise TypeError(
                f"an objective is a text 'layer:3', an Objective or a function, got {type(objective).__name__}"
            )
        return objective
    layer, separator, channel = objective.strip().rpartition(":")
    if not separator or not layer.strip("- ") or not channel.strip().isdigit():
        raise ValueError(f"objective {objective!r} must read 'LAYER:CHANNEL' (raise it) or '-LAYER:CHANNEL' (lower it)")
    if layer.startswith("-"):
        return absence_channel(layer[1:].strip(), int(channel))
    return host.as_objective(objective)


# -- reading values ---------------------------------------------------------------------------------------------------


def _driven(layer: str, read: Reader, batch: int | None, title: str, *arguments: Any) -> AbsenceObjective:
    """The objective that lowers what ``read`` makes of a layer's pre-activation."""
    shown = [str(argument) if not isinstance(argument, Tensor) else "..." for argument in (layer, *arguments)]
    description = f"{title} [{', '.join(shown)}]"
    term = Term(layer, description, read, batch)

    def loss(T: Any) -> Tensor:
        values = term.values(T)
        if len(values) == 0:
            raise ValueError(
                f"batch={batch}: the batch has no such image; pass param_f=lambda: param.image(size, batch=N)"
            )
        return values.mean()

    return AbsenceObjective(loss, title.lower(), description, (term,))


def _ours(T: Any) -> Activations:
    """T, if it keeps pre-activations. Raises TypeError for Lucent's own ``render_vis``, whose hooks see too late."""
    if isinstance(T, Activations):
        return T
    raise TypeError(
        "an absence objective reads the value before the nonlinearity, which Lucent's own render_vis does not keep; "
        "render it with absence_plugins.lucent.render_vis (the same arguments)"
    )


def _channel(module: nn.Module, value: Tensor, index: int) -> Tensor:
    return _select(value, index, channel_axis(module, value))


def _select(value: Tensor, index: int, axis: int = 1) -> Tensor:
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < value.shape[axis]:
        raise ValueError(f"channel {index!r} does not exist: the layer has {value.shape[axis]}, from 0")
    return value.select(axis, index)


def _mean(value: Tensor) -> Tensor:
    """Over everything but the images: [B, ...] -> [B]."""
    return value.reshape(len(value), -1).mean(1)


def _vector(values: Any, name: str) -> Tensor:
    vector = torch.as_tensor(values)
    if vector.dim() != 1 or not vector.is_floating_point():
        raise ValueError(f"{name} must be a vector of real numbers, one per channel, got shape {tuple(vector.shape)}")
    return vector.detach()


def _fitting(vector: Tensor, placed: Tensor) -> Tensor:
    if len(vector) != placed.shape[-1]:
        raise ValueError(f"the vector has {len(vector)} entries, the layer {placed.shape[-1]} channels")
    return vector.to(placed)


def _cosine(placed: Tensor, vector: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(placed, _fitting(vector, placed), dim=-1)


def note_rectified(T: Activations, terms: tuple[Term, ...]) -> None:
    """Warn of layers whose values are rectified all the same."""
    for layer in dict.fromkeys(term.layer for term in terms if term.layer != LABELS):
        warn_if_rectified(layer, T(Preactivation(layer)).detach())

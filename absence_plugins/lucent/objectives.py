"""Objectives that ask what suppresses a unit: Lucent's, minimized, on the value before the nonlinearity.

In Lucent an objective is a loss. ``absence_channel(layer, n)`` is the mean pre-activation of channel n, so rendering it
makes an image that drives the channel *down*; ``-absence_channel(layer, n)`` drives it up, also from below zero.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from lucent.optvis import objectives as host
from torch import Tensor, nn  # noqa: F401  (nn: examples)

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.names import read_number
from absence_plugins.core.rectified import looks_rectified
from absence_plugins.core.results import Shown
from absence_plugins.core.table import Grid
from absence_plugins.core.units import Layer, Unit
from absence_plugins.lucent.layers import LABELS, Activations, as_layer

Reader = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Term:
    """One value that an objective drives: of which layer, how it is read ([B, U, ...] -> [B]), in which images, which
    way.

    ``sign``: +1 if rendering lowers the value, -1 if it raises it.
    """

    at: Layer
    description: str
    read: Reader
    batch: int | None = None
    sign: float = 1.0

    @property
    def layer(self) -> str:
        """The layer's name; ``labels`` is the model itself."""
        return self.at.name or LABELS

    def values(self, T: Any) -> Tensor:
        """The value of every image [B] (of one, with ``batch``)."""
        value = self.read(_ours(T).maps(self.at))
        return value if self.batch is None else value[self.batch : self.batch + 1]


class AbsenceObjective(Shown, host.Objective):
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

    def __repr__(self) -> str:
        return f"AbsenceObjective({' '.join(self.description.split())})"

    def _grid(self) -> Grid:
        rows = [
            (one.description, one.layer, "down" if one.sign > 0 else "up", f"{abs(one.sign):g}",
             "all" if one.batch is None else str(one.batch))
            for one in self.terms
        ]  # fmt: skip
        foot = "driven down: the picture shows what holds the value down; values are read before the nonlinearity"
        return Grid((("term", "layer", "driven", "weight", "pictures"), *rows), left=(0, 1, 2, 4), foot=(foot,))

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
        own = tuple(replace(term, sign=term.sign * factor) for term in self.terms)
        same_start = self.same_start or getattr(other, "same_start", False)
        return AbsenceObjective(
            made.objective_func,
            made.name,
            made.description,
            own + getattr(other, "terms", ()),
            same_start,
        )


def absence_channel(layer: str | Layer, n_channel: int, batch: int | None = None) -> AbsenceObjective:
    """Drive a channel down: the mean of its pre-activation over positions and images.

    loss = mean over images of ``Unit(layer, n)``: z[:, n], z the layer's value before its nonlinearity (maps [B, C, H,
    W],
    [B, H, W, C], tokens [B, T, C] or vectors [B, C]), reduced over positions.
    Sign: lower is further down; of the rendered picture, what it shows is what the channel is held down by.

    Source: Olah et al., Distill 2017 (negative neurons), on pre-activations (docs/from-lucent.md).

    Args:
        layer: as Lucent names it (``layer1_0_bn2``), with dots, or a :class:`~absence_plugins.Layer` (which also says
            on which axis the channels are, and how positions are reduced).
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
    return _driven(layer, as_layer(layer)[n_channel].select, batch, "Absence_Channel", n_channel)


def absence_neuron(
    layer: str | Layer,
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
    at = as_layer(layer)

    def read(maps: Tensor) -> Tensor:
        return Unit(at, n_channel, _position(maps, x, y)).select(maps)

    return _driven(layer, read, batch, "Absence_Neuron", n_channel, x, y)


def absence_direction(layer: str | Layer, direction: Tensor, batch: int | None = None) -> AbsenceObjective:
    """Turn a layer's pre-activations against a direction [C]: the mean cosine similarity over positions.

    Sign: -1 is exactly opposite. Errors and source as in :func:`absence_channel`.

    >>> absence_direction("conv1", torch.ones(8)).name
    'absence_direction'
    """
    vector, at = _vector(direction, "direction"), as_layer(layer)

    def read(maps: Tensor) -> Tensor:
        return at.reduced(_cosine(maps, vector)[:, None])[:, 0]

    return _driven(layer, read, batch, "Absence_Direction", vector)


def absence_direction_neuron(
    layer: str | Layer,
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

    def read(maps: Tensor) -> Tensor:
        for index in _position(maps, x, y) or ():
            maps = maps.select(2, index)
        return _cosine(maps, vector)

    return _driven(layer, read, batch, "Absence_Direction_Neuron", vector, x, y)


def absence_channel_weight(layer: str | Layer, weight: Tensor, batch: int | None = None) -> AbsenceObjective:
    """Drive a weighted sum of channels down: mean over channels and positions of z times weight [C] (as Lucent's).

    >>> absence_channel_weight("conv1", torch.tensor([1.0, -1.0])).name
    'absence_channel_weight'
    """
    vector = _vector(weight, "weight")

    def read(maps: Tensor) -> Tensor:
        return (maps * _fitting(vector, maps)).flatten(1).mean(1)

    return _driven(layer, read, batch, "Absence_Channel_Weight", vector)


def absence_class(n_class: int, batch: int | None = None) -> AbsenceObjective:
    """Drive a logit down: what the class must not have.

    loss = logit of the class; of a model that ends in a softmax module, the value in front of it.

    Raises:
        ValueError: when rendered: no such class, or a softmax that is not a module.

    >>> absence_class(3).description
    'Absence_Class [3]'
    """
    unit = Layer("")[n_class]

    def read(maps: Tensor) -> Tensor:
        if maps.dim() != 2:
            raise ValueError(f"the model puts out {tuple(maps.shape)}, but absence_class needs logits [B, K]")
        return unit.select(maps)

    made = _driven(LABELS, read, batch, "Absence_Class", n_class)
    made.description = f"Absence_Class [{n_class}]"
    return made


def absence_contrast(layer: str | Layer, n_channel: int, kind: str = "channel", **position: int) -> AbsenceObjective:
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
    number = read_number(channel.strip())
    if not separator or not layer.strip("- ") or number is None or number < 0:
        raise ValueError(f"objective {objective!r} must read 'LAYER:CHANNEL' (raise it) or '-LAYER:CHANNEL' (lower it)")
    if layer.startswith("-"):
        return absence_channel(layer[1:].strip(), number)
    return host.as_objective(objective)


# -- reading values ---------------------------------------------------------------------------------------------------


def _driven(layer: str | Layer, read: Reader, batch: int | None, title: str, *arguments: Any) -> AbsenceObjective:
    """The objective that lowers what ``read`` makes of a layer's maps [B, U, ...]."""
    shown = [str(argument) if not isinstance(argument, Tensor) else "..." for argument in (layer, *arguments)]
    description = f"{title} [{', '.join(shown)}]"
    term = Term(as_layer(layer), description, read, batch)

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


def _position(maps: Tensor, x: int | None, y: int | None) -> tuple[int, ...] | None:
    """The position that Lucent's x and y mean in maps [B, U, ...]: the center by default; of tokens, number x.

    Raises:
        ValueError: the position lies outside.
    """
    sizes = maps.shape[2:]
    if not sizes:
        return None
    if len(sizes) > 2:
        raise ValueError(f"a layer with {len(sizes)} axes of positions has no position x, y; use absence_channel")
    asked = (("x", x),) if len(sizes) == 1 else (("y", y), ("x", x))
    chosen = [size // 2 if index is None else index for (_, index), size in zip(asked, sizes, strict=True)]
    for (name, _), index, size in zip(asked, chosen, sizes, strict=True):
        if not -size <= index < size:
            raise ValueError(f"{name}={index} lies outside the layer, which has {size} positions along it")
    return tuple(index % size for index, size in zip(chosen, sizes, strict=True))


def _vector(values: Any, name: str) -> Tensor:
    vector = torch.as_tensor(values)
    if vector.dim() != 1 or not vector.is_floating_point():
        raise ValueError(f"{name} must be a vector of real numbers, one per channel, got shape {tuple(vector.shape)}")
    return vector.detach()


def _fitting(vector: Tensor, maps: Tensor) -> Tensor:
    """The vector along the channels of maps [B, U, ...]."""
    if len(vector) != maps.shape[1]:
        raise ValueError(f"the vector has {len(vector)} entries, the layer {maps.shape[1]} channels")
    return vector.to(maps).reshape(-1, *[1] * (maps.dim() - 2))


def _cosine(maps: Tensor, vector: Tensor) -> Tensor:
    """The cosine similarity at every position: [B, U, ...] -> [B, ...]."""
    return torch.cosine_similarity(maps, _fitting(vector, maps).expand_as(maps), dim=1)


def note_rectified(T: Activations, terms: tuple[Term, ...]) -> None:
    """Warn of layers whose values are rectified all the same (a rectifier that is called as a function, or pooled)."""
    for layer in dict.fromkeys(term.at for term in terms if term.at.name):
        if looks_rectified(T.maps(layer).detach()):
            warnings.warn(
                f"every value of layer {layer.name!r} is 0 or more, and some are exactly 0, as behind a ReLU: the "
                "lowest value is then 0, and many images reach it; name the layer in front of the rectifier",
                AbsenceWarning,
                stacklevel=3,
            )

"""Counterfactuals: put a concept into a layer's features, take it out, or make the layer forget it.

All move features along the *encoding* direction s_i, by what the detector says is missing or too much. Moving along the
decoding direction w_i changes the detector as well, but not what the network makes of the features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from absence_plugins.core.checks import check_integer, check_number
from absence_plugins.core.replacing import replacing
from absence_plugins.core.units import Layer
from absence_plugins.methods.directions.heads import Explained, as_explained, from_positions, layer_of, to_positions
from absence_plugins.methods.directions.pairs import DirectionPairs

Along = Literal["encoding", "decoding"]


def delete(
    features: Tensor,
    pairs: DirectionPairs,
    direction: int,
    *,
    where: Tensor | None = None,
    to: float | None = None,
    along: Along | Tensor = "encoding",
) -> Tensor:
    """Take a concept out: where its detector fires, x - s_i (z_i - to) / (w_i . s_i), with z_i = w_i . x - b_i.

    Source: Doumanoglou et al., arXiv 2509.23926, counterfactuals.

    Args:
        features: [..., D]; not changed.
        pairs: fitted.
        direction: i.
        where: bool [...], only there, for example not at a class token; by default wherever the detector fires.
        to: the detector's logit afterwards, at most 0; by default its mean where it is silent.
        along: ``"encoding"``; ``"decoding"`` or a tensor [D], to compare with.

    Sign: what rises when a concept is deleted is what encodes its absence.

    Raises:
        ValueError, TypeError: no such direction, ``to`` above 0, ``where`` of another shape or not bool, a direction of
            movement that does not change the detector.

    Example:
        >>> from absence_plugins.data.synthetic_directions import synthetic_directions
        >>> data = synthetic_directions(images=600)
        >>> pairs = DirectionPairs(3, starts=8).fit(data.features, head=data.head)
        >>> bool((pairs.transform(delete(data.features, pairs, 0))[..., 0] < 0.5).all())
        True
    """
    z, target, way = _prepared(features, pairs, direction, to, along, present=False)
    if target > 0:
        raise ValueError(
            f"to={target} must be 0 or less, where the detector is silent; to put a concept in, use insert"
        )
    there = z > 0 if where is None else (z > 0) & _as_places(where, z)
    return features - torch.where(there, z - target, 0)[..., None] * way


def insert(
    features: Tensor,
    pairs: DirectionPairs,
    direction: int,
    *,
    where: Tensor | None = None,
    to: float | None = None,
    along: Along | Tensor = "encoding",
) -> Tensor:
    """Put a concept in: where its detector is silent, x + s_i (to - z_i) / (w_i . s_i).

    Args:
        features: [..., D]; not changed.
        pairs: fitted.
        direction: i.
        where: bool [...], only there; by default everywhere.
        to: the detector's logit afterwards, at least 0; by default its mean where it fires.
        along: as in :func:`delete`.

    Sign: what falls when a concept is inserted is what encodes its absence.

    Raises:
        ValueError, TypeError: no such direction, ``to`` below 0, ``where`` of another shape or not bool, a direction of
            movement that does not change the detector.

    Example:
        >>> from absence_plugins.data.synthetic_directions import synthetic_directions
        >>> data = synthetic_directions(images=600)
        >>> pairs = DirectionPairs(3, starts=8).fit(data.features, head=data.head)
        >>> bool((pairs.transform(insert(data.features, pairs, 0))[..., 0] > 0.5).all())
        True
    """
    z, target, way = _prepared(features, pairs, direction, to, along, present=True)
    if target < 0:
        raise ValueError(f"to={target} must be 0 or more, where the detector fires; to take a concept out, use delete")
    missing = z <= 0 if where is None else (z <= 0) & _as_places(where, z)
    return features + torch.where(missing, target - z, 0)[..., None] * way


def unlearn(features: Tensor, pairs: DirectionPairs, direction: int, *, to: float | None = None) -> Tensor:
    """Remove a concept from a layer: project its signal out, so that the detector has the same logit everywhere.

    x - s_i (z_i - to) / (w_i . s_i) at every position: [..., D] -> [..., D]; ``to`` is the logit that is left, by
    default the mean where the detector is silent. In contrast to :func:`delete` it also levels what lies below the
    threshold. Raises ValueError as :func:`delete`.

    >>> from absence_plugins.data.synthetic_directions import synthetic_directions
    >>> data = synthetic_directions(images=600)
    >>> pairs = DirectionPairs(3, starts=8).fit(data.features, head=data.head)
    >>> float(pairs.signal_values(unlearn(data.features, pairs, 0))[..., 0].std()) < 1e-4
    True
    """
    z, target, way = _prepared(features, pairs, direction, to, "encoding", present=False)
    return features - (z - target)[..., None] * way


@contextmanager
def edited(
    model: nn.Module,
    layer: str | Layer,
    change: Callable[[Tensor], Tensor],
    *,
    channels_last: bool | None = None,
) -> Iterator[nn.Module]:
    """The model, with a layer's features changed; nothing is left behind.

    ``change`` maps features [N, H, W, D], as :func:`layer_features` reads them, to features of the same shape. They are
    changed where they are read: in front of the nonlinearity that the layer ends in. ``channels_last`` as there.

    >>> net = nn.Sequential(nn.Identity(), nn.Flatten())
    >>> with edited(net, "0", lambda features: features + 1) as changed:
    ...     changed(torch.zeros(1, 2, 1, 1))
    tensor([[1., 1.]])
    >>> net(torch.zeros(1, 2, 1, 1))
    tensor([[0., 0.]])
    """

    def changed(maps: Tensor) -> Tensor:
        features = to_positions(maps)
        made = change(features)
        if made.shape != features.shape:
            raise ValueError(
                f"change must return features of the shape {tuple(features.shape)}, got {tuple(made.shape)}"
            )
        return from_positions(made, maps.shape)

    with replacing(model, layer_of(layer, channels_last), changed):
        yield model


@dataclass(frozen=True)
class RemovalCheck:
    """What removing a concept from images does to a unit; see :func:`removal_check`.

    Attributes:
        n: images.
        raised_share: share of them in which the unit rose.
        mean_rise: in the unit's own units; above 0: the unit encodes the concept's absence.
        p_value: one-sided Wilcoxon signed-rank test of a rise.
    """

    n: int
    raised_share: float
    mean_rise: float
    p_value: float

    @classmethod
    def of_rises(cls, rise: Tensor) -> RemovalCheck:
        """Of the unit's values without the concept minus those with it, [N].

        >>> RemovalCheck.of_rises(torch.tensor([1.0, 2.0, -1.0])).raised_share
        0.6666666666666666
        """
        rise = rise.double().cpu()
        from scipy import stats  # half a second that most who import this module do not need

        p_value = float(stats.wilcoxon(rise.numpy(), alternative="greater").pvalue) if bool((rise != 0).any()) else 1.0
        return cls(len(rise), float((rise > 0).double().mean()), float(rise.mean()), p_value)

    def to_dict(self) -> dict[str, Any]:
        """The four numbers by name."""
        return asdict(self)


@torch.no_grad()
def removal_check(model: nn.Module, images: Tensor, removed: Tensor, unit: Explained) -> RemovalCheck:
    """The check on real images: does a unit rise when the concept is removed from the *image*?

    Args:
        model: in evaluation mode.
        images: [N, ...], with the concept.
        removed: [N, ...], the same without it.
        unit: a class number, an output as in :mod:`absence_plugins.core.outputs`, a :class:`~absence_plugins.Unit` or a
            :class:`~absence_plugins.Direction`.

    Raises:
        ValueError: pairs of another shape, no such class or unit.

    >>> net = nn.Linear(1, 1, bias=False)
    >>> _ = net.weight.data.fill_(-1.0)
    >>> removal_check(net, torch.ones(6, 1), torch.zeros(6, 1), 0)
    RemovalCheck(n=6, raised_share=1.0, mean_rise=1.0, p_value=0.015625)
    """
    if images.shape != removed.shape:
        raise ValueError(f"images has shape {tuple(images.shape)}, removed {tuple(removed.shape)}; they must be pairs")

    explained = as_explained(unit).of(model)
    return RemovalCheck.of_rises(explained(removed) - explained(images))


def _prepared(
    features: Tensor, pairs: DirectionPairs, direction: int, to: float | None, along: Along | Tensor, *, present: bool
) -> tuple[Tensor, float, Tensor]:
    """z_i [...], its target, and the step [D] that raises z_i by 1."""
    direction = check_integer("direction", direction, 0, pairs.n_directions - 1)
    if not features.is_floating_point():
        raise TypeError(f"features are of {features.dtype}; pass floating-point numbers: features.float()")
    z = pairs.logits_of(features, direction)
    w = pairs.decoding[:, direction].to(features)
    if isinstance(along, Tensor):
        way = along.to(features)
    elif along in ("encoding", "decoding"):
        way = getattr(pairs, along)[:, direction].to(features)
    else:
        raise ValueError(f"along={along!r} must be 'encoding', 'decoding' or a tensor [D]")
    gain = w @ way
    if float(gain.abs()) <= 1e-6 * float(w.norm() * way.norm()):
        raise ValueError("along is orthogonal to the decoding direction: moving along it does not change the detector")
    target = float(pairs.typical[int(present), direction]) if to is None else check_number("to", to)
    return z, target, way / gain


def _as_places(where: Tensor, z: Tensor) -> Tensor:
    """Where to edit, bool, broadcast to the positions [...] of detector logits."""
    kind = where.dtype if isinstance(where, Tensor) else type(where).__name__
    if kind != torch.bool:
        raise TypeError(f"where is of {kind}; it must be a bool tensor, for example mask > 0")
    try:
        return where.to(z.device).expand(z.shape)
    except RuntimeError:
        raise ValueError(
            f"where has shape {tuple(where.shape)}; it must be that of the positions, {tuple(z.shape)}"
        ) from None


def random_way(pairs: DirectionPairs, direction: int, *, seed: int = 0) -> Tensor:
    """A random unit vector [D] that the detector reacts to positively, as a baseline for ``along``."""
    w = pairs.decoding[:, direction].cpu()
    drawn = F.normalize(torch.randn(len(w), generator=torch.Generator().manual_seed(seed)), dim=0)
    return drawn * (w @ drawn).sign()

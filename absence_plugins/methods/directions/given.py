"""Directions that somebody has found elsewhere, as pairs: rows of a sparse autoencoder, probes, principal axes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.core.checks import check_choice
from absence_plugins.methods.directions.features import Features, chunks
from absence_plugins.methods.directions.histograms import bin_centers, bin_edges, count_values
from absence_plugins.methods.directions.polish import sum_over
from absence_plugins.methods.directions.report import (
    ALONE_BELOW,
    NAMED,
    DirectionReport,
    describe,
    name_some,
    note_directions,
)
from absence_plugins.methods.directions.signals import FEWEST, Moments, Signal, selected
from absence_plugins.methods.directions.splitting import find_quantiles, split_values
from absence_plugins.methods.directions.thresholds import fit_thresholds

POSITIONS, VALUES = 4096, 2**23  # at a time
COLUMNS = 512  # directions whose histograms are split at a time
FINER = 5  # histograms of values among outliers so far that all others share a few bins
WIDE = 6.0  # standard deviations of a normal distribution between find_quantiles
SAME = 0.999  # cosine of two rows from which on they are one direction
STILL = 1e-10  # variance along a direction, relative to the features' in all, below which it does not vary
INDEPENDENT = 1e-3  # smallest eigenvalue of the values' correlations with which encodings are estimated jointly


@dataclass(frozen=True, eq=False)
class GivenPairs:
    """Decoding and encoding [D, I], thresholds [I], typical values [2, I], and what became of each direction."""

    decoding: Tensor
    threshold: Tensor
    encoding: Tensor
    typical: Tensor
    report: DirectionReport
    notes: tuple[str, ...]


def check_directions(directions: Tensor, dimensions: int, what: str = "directions") -> Tensor:
    """Rows [I, D] in float64.

    Raises:
        TypeError, ValueError: not [I, D], NaN, rows of zeros; which, and the remedy.
    """
    if not isinstance(directions, Tensor):
        raise TypeError(f"{what} must be a tensor [I, D], a row for each, got a {type(directions).__name__}")
    shape = tuple(directions.shape)
    if directions.dim() != 2 or directions.shape[1] != dimensions or not len(directions):
        turned = "; they are columns here: pass their transpose" if shape[0] == dimensions and len(shape) == 2 else ""
        raise ValueError(f"{what} has shape {shape}; it must be [I, {dimensions}], a row for each{turned}")
    rows = directions.detach().double()
    if len(broken := torch.nonzero(~rows.isfinite().all(1)).flatten()):
        raise ValueError(f"{what} has NaN or infinite values in row {name_some(broken)}; leave these rows out")
    if len(empty := torch.nonzero(rows.norm(dim=1) == 0).flatten()):
        raise ValueError(
            f"{what} has nothing but zeros in row {name_some(empty)} (dead features?); leave these out, as in "
            f"{what}[{what}.norm(dim=1) > 0]"
        )
    return rows


def describe_given(
    directions: Tensor,
    features: Features,
    thresholds: Tensor | Literal["each", "together"],
    encoding: Tensor | None,
    signal: Signal | None,
) -> GivenPairs:
    """See :meth:`absence_plugins.methods.directions.DirectionPairs.from_directions`."""
    check_choice("signal", signal or "joint", ("joint", "exclusive", "positive"))
    dimensions = features.shape[3]
    w = check_directions(directions, dimensions).T
    device = features.batch(torch.arange(1)).device
    given = None if encoding is None else check_directions(encoding, dimensions, "encoding").T.to(device)
    if given is not None and given.shape != w.shape:
        raise ValueError(f"encoding has {given.shape[1]} rows for {w.shape[1]} directions; pass one for each")
    w = w.to(device)
    mean, center, deviation = _scale(features, w)
    notes = _note_rows(w, dimensions)
    if isinstance(thresholds, str):
        check_choice("thresholds", thresholds, ("each", "together"))
        if thresholds == "together":
            if w.shape[1] < 2:
                raise ValueError(
                    "thresholds='together' needs at least two directions, of which every position shows one; pass "
                    "thresholds='each' for a single one"
                )
            split = fit_thresholds(_Standardized(features, w, center, deviation)).threshold
        else:
            split, clear = _split_each(features, w, center, deviation)
            if len(vague := torch.nonzero(~clear).flatten()):
                notes.append(
                    f"the values along direction {name_some(vague)} make one group, so the threshold is a guess; pass "
                    "thresholds= if you know them"
                )
        threshold = center + deviation * split
    else:
        threshold = _as_thresholds(thresholds, w.shape[1]).to(device)
    counts_of, typical = _read_detectors(features, w, threshold)
    fires, alone, positions = counts_of
    if given is None:
        encodings, used, said = _estimate(features, w, threshold, mean, (fires, alone, positions), signal)
        notes += said
    else:
        encodings, used = F.normalize(given, dim=0), torch.zeros_like(fires)
        if len(turned := torch.nonzero((w * encodings).sum(0) <= 0).flatten()):
            raise ValueError(
                f"encoding row {name_some(turned)} lowers its own detector (w . s <= 0); check that rows of encoding and "
                "directions belong together"
            )
    report = describe(fires.cpu(), alone.cpu(), used.cpu(), encodings.cpu(), positions, fewest=FEWEST)
    notes += note_directions(report, has_head=True, alike="have alike encodings")
    return GivenPairs(w.float(), threshold.float(), encodings.float(), typical.float(), report, tuple(notes))


def _positions(features: Features, columns: int) -> Iterator[Tensor]:
    """All positions in float64, so many at a time that [p, columns] stays small: [p, D]."""
    for chunk in chunks(features):
        parts = torch.split(chunk.flatten(0, 2), max(1, min(POSITIONS, VALUES // columns)))
        yield from (part.double() for part in parts)


class _Standardized(Iterable[Tensor]):
    """Values along each direction with mean 0 and standard deviation 1, chunk by chunk, each time they are read."""

    def __init__(self, features: Features, w: Tensor, center: Tensor, deviation: Tensor) -> None:
        self.features, self.w, self.center, self.deviation = features, w, center, deviation

    def __iter__(self) -> Iterator[Tensor]:
        for x in _positions(self.features, self.w.shape[1]):
            yield (x @ self.w - self.center) / self.deviation


def _split_each(features: Features, w: Tensor, center: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """Standardized thresholds [I] where each direction's own values part, and whether they clearly do, bool [I]."""
    found, clear = [], []
    for part in torch.split(torch.arange(w.shape[1], device=w.device), COLUMNS):
        middle, scale = center[part], deviation[part]
        for _ in range(FINER):
            counts = sum_over(count_values(u) for u in _Standardized(features, w[:, part], middle, scale))
            edges, (half, low, high) = bin_edges(counts), find_quantiles(counts)
            reach = edges[high + 1] - edges[low]
            coarse = reach < 1
            if not bool(coarse.any()):
                break
            middle = torch.where(coarse, middle + scale * bin_centers(counts)[half], middle)
            scale = torch.where(coarse, scale * reach / WIDE, scale)
        else:  # nearly all values are the same: no finer histogram shows more
            middle, scale = (torch.where(coarse, a[part], b) for a, b in ((center, middle), (deviation, scale)))
            counts = sum_over(count_values(u) for u in _Standardized(features, w[:, part], middle, scale))
        split, _, known = split_values(counts)
        found.append((middle + scale * split - center[part]) / deviation[part])
        clear.append(known)
    return torch.cat(found), torch.cat(clear)


def _scale(features: Features, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean feature [D], and mean and standard deviation along each direction [I].

    Raises:
        ValueError: fewer than two positions, a direction along which the features do not vary.
    """
    count, (total, own), (values, squares) = 0, w.new_zeros(2, w.shape[0]), w.new_zeros(2, w.shape[1])
    for x in _positions(features, w.shape[1]):
        if not bool(x.isfinite().all()):
            raise ValueError("features has NaN or infinite values; check the images and the layer, or leave these out")
        along = x @ w
        count, total, own = count + len(x), total + x.sum(0), own + (x**2).sum(0)
        values, squares = values + along.sum(0), squares + (along**2).sum(0)
    if count < 2:
        raise ValueError(f"features has {count} positions; pass more, as thresholds and encodings are estimated")
    mean, center = total / count, values / count
    variance = (squares / count - center**2).clamp(min=0)
    whole = (own / count - mean**2).clamp(min=0).sum()
    still = variance <= STILL * whole * (w**2).sum(0)
    if bool(still.any()):
        numbers = torch.nonzero(still).flatten()
        raise ValueError(
            f"the features do not vary along direction {name_some(numbers)}; leave these rows out (dead features?), or "
            "check that directions and features are of the same layer"
        )
    return mean, center, variance.sqrt()


def _read_detectors(features: Features, w: Tensor, threshold: Tensor) -> tuple[tuple[Tensor, Tensor, int], Tensor]:
    """How often each detector fires and fires alone, of how many positions, and its typical values [2, I]."""
    size = w.shape[1]
    fires, alone = (torch.zeros(size, dtype=torch.int64, device=w.device) for _ in range(2))
    total, above = (torch.zeros(size, dtype=torch.float64, device=w.device) for _ in range(2))
    positions = 0
    for x in _positions(features, w.shape[1]):
        z = x @ w - threshold
        fires += (z > 0).sum(0)
        alone += selected(z, "exclusive").sum(0)
        total, above, positions = total + z.sum(0), above + z.relu().sum(0), positions + len(z)
    silent = (total - above) / (positions - fires).clamp(min=1)
    return (fires, alone, positions), torch.stack([silent, above / fires.clamp(min=1)])


def _estimate(
    features: Features,
    w: Tensor,
    threshold: Tensor,
    mean: Tensor,
    counts: tuple[Tensor, Tensor, int],
    signal: Signal | None,
) -> tuple[Tensor, Tensor, list[str]]:
    """Encodings [D, I], the number of positions behind each, and what is to be said of them."""
    fires, alone, positions = counts
    if signal == "joint" or (signal is None and w.shape[1] > 1):
        joint, least = _joint_signals(features, w, mean)
        if least >= INDEPENDENT:
            return F.normalize(joint, dim=0), torch.full_like(fires, positions), []
        if signal == "joint":
            raise ValueError(
                "the directions' values depend on each other (more directions than dimensions, or rows that are nearly "
                "the same), so no joint estimate exists; pass signal='exclusive'"
            )
    extra = alone < ALONE_BELOW * fires
    chosen, everywhere = Moments(), Moments()
    which: Signal = "positive" if signal == "positive" else "exclusive"
    for x in _positions(features, w.shape[1]):
        z = x @ w - threshold
        chosen.add(x - mean, z, selected(z, which, extra))
        everywhere.add(x - mean, z, torch.ones_like(z))
    signals, used = chosen.signals()
    fallback, _ = everywhere.signals()
    usable = (used >= FEWEST) & (signals.norm(dim=0) > 0) & ((w * signals).sum(0) > 0)
    rest = torch.nonzero(~usable).flatten()
    said = [] if signal else ["encodings are estimated one by one, as the directions' values depend on each other"]
    if len(rest):
        said.append(f"direction {name_some(rest)} has too few positions of its own: its encoding is estimated from all")
    return F.normalize(torch.where(usable, signals, fallback), dim=0), used * usable, said


def _joint_signals(features: Features, w: Tensor, mean: Tensor) -> tuple[Tensor, float]:
    """Least squares of the features on all values together, [D, I], and how independent the values are: the smallest
    eigenvalue of their correlations, 0 to 1.
    """
    if w.shape[1] > w.shape[0]:
        return w, 0.0
    mixed, own = torch.zeros_like(w), w.new_zeros(w.shape[1], w.shape[1])
    for x in _positions(features, w.shape[1]):
        u = (x - mean) @ w
        mixed += (x - mean).T @ u
        own += u.T @ u
    scale = own.diagonal().sqrt()
    correlation = own / scale / scale[:, None]
    solved = torch.linalg.pinv(correlation, rtol=1e-9, hermitian=True)
    return mixed / scale @ solved / scale, float(torch.linalg.eigvalsh(correlation)[0])


def _as_thresholds(thresholds: Tensor, count: int) -> Tensor:
    if not isinstance(thresholds, Tensor | float | int | Sequence):
        raise TypeError(
            f"thresholds must be a tensor [{count}], 'each' or 'together', got {type(thresholds).__name__}; leave it out to "
            "estimate them"
        )
    found = torch.as_tensor(thresholds, dtype=torch.float64).detach()
    found = found.expand(count) if found.dim() == 0 else found
    if found.shape != (count,) or not bool(found.isfinite().all()):
        raise ValueError(
            f"thresholds has shape {tuple(found.shape)}; it must be [{count}], one finite number per direction: it "
            "fires where w.x is above"
        )
    return found


def _note_rows(w: Tensor, dimensions: int) -> list[str]:
    """More directions than dimensions, and rows that are the same or opposite."""
    notes, size = [], w.shape[1]
    if size > dimensions:
        notes.append(
            f"there are more directions ({size:,}) than dimensions ({dimensions:,}): they depend on each other, and "
            "an effect of one is in part an effect of others"
        )
    unit = F.normalize(w, dim=0)
    for words, sign in (("the same", 1.0), ("opposite", -1.0)):
        found: list[tuple[int, int]] = []
        for first in range(0, size, COLUMNS):
            cosine = sign * unit[:, first : first + COLUMNS].T @ unit
            rows, columns = torch.nonzero(cosine > SAME, as_tuple=True)
            found += [(i + first, j) for i, j in zip(rows.tolist(), columns.tolist(), strict=True) if i + first < j]
        if found:
            shown = ", ".join(f"{i} and {j}" for i, j in found[:NAMED])
            more = f", and {len(found) - NAMED} more pairs" if len(found) > NAMED else ""
            notes.append(f"directions {shown}{more} are {words}")
    return notes

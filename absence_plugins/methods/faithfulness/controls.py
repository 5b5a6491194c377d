"""Orders that never saw the network: what the input alone earns when a map's claims are checked."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.core.kinds import Kind, SignalKind, TableKind, TextKind
from absence_plugins.methods.faithfulness.cells import mean_around
from absence_plugins.methods.faithfulness.claims import Claim
from absence_plugins.methods.faithfulness.salience import (
    mark_brightest,
    measure_corners,
    measure_curvature,
    measure_gradient,
    measure_variance,
)

SPREAD = 0.25  # of the blob in the middle, in sides of the image
SMOOTH = 5  # pixels a side that the smooth noise is averaged over, twice


def measure_salience(x: Tensor, changed: Tensor) -> dict[str, Tensor]:
    """Name -> how salient every pixel of x [N, C, H, W] is without any network, [N, 1, H, W] (features: [N, F]).

    "color": the distance from the image's own median color; "difference": from what replaces it (``changed``, as x);
    "edges": the length of the gradient over the channels; "center": a blob in the middle; "smooth noise": independent
    of the image, too; "curvature": the size of the Laplacian after a Gaussian of 1 pixel, "flat" the least of it,
    "coarsely flat" after one of 2 pixels; "contrast": by how much the variance in 3 x 3 pixels exceeds that of
    ``changed``. Features [N, F] have the first two.

    >>> list(measure_salience(torch.rand(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)))
    ['color', 'difference', 'edges', 'center', 'smooth noise', 'curvature', 'flat', 'coarsely flat', 'contrast']
    """
    x, changed = x.detach().cpu().double(), changed.detach().cpu().double()
    if x.dim() == 2:
        return {"color": (x - x.median(1, keepdim=True).values).abs(), "difference": (x - changed).abs()}
    median = x.flatten(2).median(2).values[:, :, None, None]
    down, right = (F.pad(x.diff(dim=axis).abs(), pad) for axis, pad in ((2, (0, 0, 0, 1)), (3, (0, 1, 0, 0))))
    up, left = down.roll(1, 2), right.roll(1, 3)
    height, width = x.shape[2:]
    rows, columns = (torch.linspace(-0.5, 0.5, side, dtype=x.dtype) if side > 1 else x.new_zeros(1) for side in (height, width))  # fmt: skip
    blob = (-(rows[:, None].square() + columns.square()) / (2 * SPREAD**2)).exp()
    noise = torch.rand(len(x), 1, height, width, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    for _ in range(2):
        noise = F.avg_pool2d(noise, SMOOTH, 1, SMOOTH // 2, count_include_pad=False)
    return {
        "color": (x - median).abs().sum(1, keepdim=True),
        "difference": (x - changed).abs().sum(1, keepdim=True),
        "edges": (down + right + up + left).sum(1, keepdim=True),
        "center": blob.expand(len(x), 1, -1, -1),
        "smooth noise": noise,
        "curvature": measure_curvature(x, 1.0),
        "flat": -measure_curvature(x, 1.0),
        "coarsely flat": -measure_curvature(x, 2.0),
        "contrast": measure_variance(x, 3) - measure_variance(changed, 3),
    }


def measure_kind_salience(kind: Kind, x: Tensor, changed: Tensor) -> dict[str, Tensor]:
    """The same of other kinds of data: name -> [N, *things], or with an axis of one channel.

    Tables: "difference" from what replaces the entries, in the column's own spread, and the mean of it over the samples
    ("column"). Texts: "first" and "last" places, the "center", and how "rare" a token is among these texts. Signals: as
    images of one row. Volumes: "color", "difference", "edges", "center" and "smooth noise", as of images.

    >>> list(measure_kind_salience(TextKind({}), torch.tensor([[1, 2]]), torch.tensor([[0, 2]])))
    ['first', 'last', 'center', 'rare']
    """
    x, changed = x.detach().cpu(), changed.detach().cpu()
    if isinstance(kind, TableKind):
        values = torch.cat([x, changed]).double()
        far = (x - changed).abs().double() / values.std(0, correction=0).clamp(min=1e-12)
        difference = kind.things(far)
        return {"difference": difference, "column": difference.mean(0, keepdim=True).expand_as(difference)}
    if isinstance(kind, TextKind):
        place = torch.linspace(0, 1, x.shape[1], dtype=torch.float64).expand(x.shape)
        _, token, counts = torch.unique(x, return_inverse=True, return_counts=True)
        return {"first": -place, "last": place, "center": -(place - 0.5).abs(), "rare": -counts[token].double()}
    if isinstance(kind, SignalKind):
        rows = [part[:, None, None] if part.dim() == 2 else part[:, :, None] for part in (x, changed)]
        return {name: found[:, 0, 0] for name, found in measure_salience(rows[0], rows[1]).items()}
    volumes = [part[:, None] if part.dim() == 4 else part for part in (x.double(), changed.double())]
    return {name: found[:, 0] for name, found in _measure_volumes(volumes[0], volumes[1]).items()}


def _measure_volumes(x: Tensor, changed: Tensor) -> dict[str, Tensor]:
    """[N, C, D, H, W] to [N, 1, D, H, W] each."""
    median = x.flatten(2).median(2).values[:, :, None, None, None]
    edges = torch.zeros_like(x)
    squares = x.new_zeros(1, 1, 1, 1, 1)
    for axis in (2, 3, 4):
        steps = x.diff(dim=axis).abs()
        edge = [length for a in (4, 3, 2) for length in (0, int(a == axis))]
        edges += F.pad(steps, edge) + F.pad(steps, edge).roll(1, axis)
        side = x.shape[axis]
        line = torch.linspace(-0.5, 0.5, side, dtype=x.dtype) if side > 1 else x.new_zeros(1)
        squares = squares + line.square().reshape([side if a == axis else 1 for a in range(5)])
    noise = torch.rand(len(x), 1, *x.shape[2:], generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    for _ in range(2):
        noise = mean_around(noise, SMOOTH)
    return {
        "color": (x - median).abs().sum(1, keepdim=True),
        "difference": (x - changed).abs().sum(1, keepdim=True),
        "edges": edges.sum(1, keepdim=True),
        "center": (-squares / (2 * SPREAD**2)).exp().expand(len(x), 1, *x.shape[2:]),
        "smooth noise": noise,
    }


def measure_held_out(x: Tensor) -> dict[str, Tensor]:
    """Name -> maps of images [N, C, H, W] that are not among the controls, to see whether those are enough: [N, 1, H,
    W].

    Of each also the negative, "least ...".

    >>> list(measure_held_out(torch.rand(2, 3, 8, 8)))[:4]
    ['variance', 'least variance', 'wide variance', 'least wide variance']
    """
    x = x.detach().cpu().double()
    found = {
        "variance": measure_variance(x, 3),
        "wide variance": measure_variance(x, 5),
        "coarse curvature": measure_curvature(x, 2.0),
        "Laplacian": measure_curvature(x, 0.0),
        "corners": measure_corners(x),
        "saturation": x.amax(1, keepdim=True) - x.amin(1, keepdim=True),
        "brightness": x.sum(1, keepdim=True),
        "gradient": measure_gradient(x, 1.0),
        "coarse gradient": measure_gradient(x, 2.0),
        "brightest place": mark_brightest(x),
    }
    return {f"{word}{name}": sign * map_ for name, map_ in found.items() for word, sign in (("", 1), ("least ", -1))}


def score_controls(claim: Claim) -> dict[str, Tensor]:
    """Name -> scores of cells [rows, cells] as :meth:`Claim.scores` gives them, of the image that holds the content.

    That is x itself where content is blanked, and the reference where content is copied in.
    """
    shown, other = (claim.x, claim.changed) if claim.sign > 0 else (claim.changed, claim.x)
    allowed, kind = claim.allowed.cpu(), claim.cells.kind
    found = measure_salience(shown, other) if kind is None else measure_kind_salience(kind, shown, other)
    return {name: claim.cells.total_allowed(map_, allowed) for name, map_ in found.items()}

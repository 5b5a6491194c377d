"""Filling a region of an image as if its content were not there: grey, blurred, or continued from the surroundings.

Works on the values as they are, so on normalized inputs, too: black, the value 0 and the like play no role.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

Filling = Literal["grey", "blurred", "inpainted"]
FILLINGS: tuple[str, ...] = get_args(Filling)
WIDTH = 1 / 16  # standard deviation of the blur, as a share of the longer side
TRUNCATED = 3  # standard deviations
PRECISION = {torch.float64: 1e-10}  # residual of the inpainting, as a share of its start
SINGLE = 1e-6


def fill(x: Tensor, where: Tensor, kind: Filling = "inpainted", *, color: Tensor | float | None = None) -> Tensor:
    """Images with the content of a region replaced; every value outside is bit-identical to x.

    - "grey": the mean color of the whole image, one value per channel; or ``color``.
    - "blurred": the image behind a Gaussian of a sixteenth of its longer side. Near the edge of the region, and of its
      large shapes, something of the content remains.
    - "inpainted": the surroundings continued smoothly. Every filled value is the mean of its neighbors (above, below,
      left, right, as far as the image reaches), the discrete harmonic function, so nothing of the content remains.
      Constant surroundings give that constant, surroundings that change linearly continue linearly.

    Args:
        x: images [..., C, H, W] of floating dtype, normalized or not; the result has its shape, dtype and device.
            Deterministic. No gradient flows through the filled values.
        where: the region, boolean, [H, W] or whatever broadcasts to x.
        kind: as above.
        color: for "grey": a number, or what broadcasts to x, such as [C, 1, 1].

    Raises:
        TypeError: x is of integers, ``where`` is not boolean.
        ValueError: an unknown kind, a region that does not broadcast, a color for another kind than "grey", "inpainted"
            where a whole image is to be filled and nothing is left to continue.

    >>> ramp = torch.arange(6.0).expand(1, 6, 6)
    >>> where = torch.zeros(6, 6, dtype=torch.bool)
    >>> where[2:4, 2:4] = True
    >>> fill(ramp + 10 * where, where, "inpainted")[0, 2].tolist()  # the ramp again
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    >>> fill(ramp, where, "grey")[0, 2].tolist()
    [0.0, 1.0, 2.5, 2.5, 4.0, 5.0]
    """
    where = _checked(x, where, kind, color)
    work = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    with torch.no_grad():
        if kind == "grey":
            start = work[..., :1, :1]  # differences from it: the mean of a constant is that constant to the bit
            filled = (work - start).mean((-2, -1), keepdim=True) + start if color is None else torch.as_tensor(color)
            filled = filled.to(work).expand_as(work)
        else:
            filled = blur(work) if kind == "blurred" else _continue_smoothly(work, where)
    return torch.where(where, filled.to(x.dtype), x)


def blur(x: Tensor, width: float = WIDTH) -> Tensor:
    """Images [..., C, H, W] behind a Gaussian whose standard deviation is a share ``width`` of the longer side.

    At the edges the mean is over what lies in the image.

    >>> blur(torch.full((1, 4, 4), 0.3))[0, 0].tolist() == torch.full((4,), 0.3).tolist()
    True
    """
    deviation = max(width * max(x.shape[-2:]), 1e-6)
    reach = max(1, round(TRUNCATED * deviation))
    steps = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    weights = torch.exp(-0.5 * (steps / deviation) ** 2)
    start = x[..., :1, :1]
    flat = (x - start).reshape(-1, 1, *x.shape[-2:])
    for axis, shape in ((-1, (1, 1, 1, -1)), (-2, (1, 1, -1, 1))):
        kernel = weights.view(shape)
        padding = (0, reach) if axis == -1 else (reach, 0)
        counted = F.conv2d(torch.ones_like(flat[:1]), kernel, padding=padding)
        flat = F.conv2d(flat, kernel, padding=padding) / counted
    return flat.reshape(x.shape) + start


def _checked(x: Tensor, where: Tensor, kind: str, color: Tensor | float | None) -> Tensor:
    """The region in x's shape."""
    if kind not in FILLINGS:
        raise ValueError(f"kind={kind!r} must be one of {', '.join(FILLINGS)}")
    if color is not None and kind != "grey":
        raise ValueError(f"color goes with kind 'grey', not {kind!r}")
    if x.dim() < 3 or not x.is_floating_point():
        raise TypeError(f"images must be [..., C, H, W] of floating dtype, got {tuple(x.shape)} of {x.dtype}")
    if where.dtype != torch.bool:
        raise TypeError(f"where must be boolean, True where the image is filled, got {where.dtype}")
    try:
        where = where.to(x.device).expand_as(x)
    except RuntimeError:
        raise ValueError(
            f"where of shape {tuple(where.shape)} does not broadcast to images of shape {tuple(x.shape)}; pass [H, W]"
        ) from None
    if kind == "inpainted" and bool(where.flatten(-2).all(-1).any()):
        raise ValueError(
            "nothing of the image is left to continue into the region; fill less of it, or choose kind 'blurred' or "
            "'grey'"
        )
    return where


def _continue_smoothly(x: Tensor, where: Tensor) -> Tensor:
    """The discrete harmonic function in the region with x around it, solved in a box around each image's region."""
    size = x.shape[-2:]
    holes, values = where.reshape(-1, *size), x.reshape(-1, *size).clone()
    rows = holes.flatten(1).any(1).nonzero().flatten().tolist()
    if not rows:
        return x
    corners, box = _boxes(holes[rows])
    parts = [(row, slice(y, y + box[0]), slice(z, z + box[1])) for row, (y, z) in zip(rows, corners, strict=True)]
    inside = torch.stack([holes[part] for part in parts])
    around = torch.stack([values[part] for part in parts])
    start = around.masked_fill(inside, torch.inf).flatten(1).amin(1)[:, None, None]  # so a constant is one to the bit
    solved = _relax((around - start).masked_fill(inside, 0.0), inside) + start
    for part, found in zip(parts, solved, strict=True):
        values[part] = found
    return values.reshape(x.shape)


def _boxes(holes: Tensor) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """The upper left corners of boxes of one size that hold each region [N, H, W] and the pixels next to it."""
    firsts, sizes = [], []
    for hit in (holes.any(2), holes.any(1)):
        length = hit.shape[1]
        first = hit.int().argmax(1) - 1
        last = length - hit.flip(1).int().argmax(1)
        size = min(length, int((last - first).max()) + 1)
        firsts.append(first.clamp(min=0).clamp(max=length - size).tolist())
        sizes.append(size)
    return list(zip(*firsts, strict=True)), (sizes[0], sizes[1])


def _relax(known: Tensor, holes: Tensor) -> Tensor:
    """Images [N, H, W], 0 in the holes -> the holes filled, such that the differences from the neighbors sum to 0."""
    precision = PRECISION.get(known.dtype, SINGLE)
    tiny = torch.finfo(known.dtype).tiny
    found = known
    residual = -_laplacian(known) * holes
    direction = residual.clone()
    size = _square(residual)
    enough = precision**2 * size
    for _ in range(4 * sum(known.shape[1:])):
        if not bool((size > enough).any()):
            break
        image = _laplacian(direction) * holes
        step = size / (direction * image).sum((1, 2), keepdim=True).clamp(min=tiny)
        found = found + step * direction
        residual = residual - step * image
        before, size = size, _square(residual)
        direction = residual + direction * (size / before.clamp(min=tiny))
    return found


def _square(values: Tensor) -> Tensor:
    return values.square().sum((1, 2), keepdim=True)


def _laplacian(values: Tensor) -> Tensor:
    """The sum of the differences from the neighbors, of [N, H, W]; none across the image's edge."""
    result = torch.zeros_like(values)
    down, right = values.diff(dim=1), values.diff(dim=2)
    result[:, :-1] -= down
    result[:, 1:] += down
    result[:, :, :-1] -= right
    result[:, :, 1:] += right
    return result

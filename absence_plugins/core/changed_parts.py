"""A network on images that are others with a rectangle exchanged: only what the rectangle changes is computed again.

A layer of convolutions, poolings and elementwise functions hands a changed rectangle on as a changed rectangle, wider
by its kernel. So the network runs once on the images as they are, and beside every map the *windows* that the changes
reach are computed: each convolution takes them with the halo that the unchanged map has around them. A window that has
grown over its whole map needs the map no more, which then is not computed either.

What an operation does with windows is said in :mod:`absence_plugins.core.changed_rules`; one that is not known there,
or that mixes images of a batch, ends it, and the caller runs the images whole. Windows are convolved in other shapes
than whole maps, so float32 differs in its last bits (:data:`CLOSE`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from absence_plugins.core.changed_rules import follow
from absence_plugins.core.changed_windows import Map, Window, complete, cut, tensors_in

CLOSE = {torch.float32: 1e-5, torch.float64: 1e-12}  # of the largest value; other types run whole
VALUE = 100  # multiplications in the time in which one value is written
Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Changed:
    """Images [n, C, H, W] that are others with a rectangle exchanged.

    Attributes:
        images: [m, C, H, W], the others.
        rows: of each of the n, which of the others it is.
        corners: of each, y and x of the rectangle's upper left corner.
        pixels: [n, C, h, w], what stands in the rectangle.

    >>> Changed(torch.zeros(1, 1, 1, 3), [0, 0], [(0, 0), (0, 2)], torch.ones(2, 1, 1, 1)).whole().tolist()
    [[[[1.0, 0.0, 0.0]]], [[[0.0, 0.0, 1.0]]]]
    """

    images: Tensor
    rows: Sequence[int]
    corners: Sequence[tuple[int, int]]
    pixels: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def whole(self) -> Tensor:
        """The images [n, C, H, W]."""
        made = self.images[list(self.rows)]
        height, width = self.pixels.shape[2:]
        for one, (y, x) in enumerate(self.corners):
            made[one, :, y : y + height, x : x + width] = self.pixels[one]
        return made

    def _map(self, *groups: list[int]) -> Map:
        windows = [Window(self.pixels[group], [self.corners[one] for one in group]) for group in groups]
        return Map((2, 3), self.images.shape, windows)

    def _groups(self) -> list[list[int]]:
        """Rectangles in a corner of the image have a halo on two sides only: they are computed apart."""
        room = [full - part for full, part in zip(self.images.shape[2:], self.pixels.shape[2:], strict=True)]
        in_corner = [all(at in (0, last) for at, last in zip(spot, room, strict=True)) for spot in self.corners]
        groups = [[one for one, is_so in enumerate(in_corner) if is_so is side] for side in (True, False)]
        return [group for group in groups if group]


@dataclass(frozen=True)
class Work:
    """What a run costs, in multiplications; a value that is written or copied counts as :data:`VALUE` of them.

    Attributes:
        clean: on the images as they are.
        windows: on the windows of the changed images.
        whole: on the changed images, if they run whole.
        calls: operations on windows, which cost something even where they are small.
    """

    clean: float = 0.0
    windows: float = 0.0
    whole: float = 0.0
    calls: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.clean + other.clean, self.windows + other.windows, self.whole + other.whole, self.calls + other.calls
        )


@dataclass
class Followed:
    """What :func:`run_changed` gives: ``values`` [n, ...], or None and ``why`` the images must run whole."""

    values: Tensor | None
    why: str = ""
    work: Work = field(default_factory=Work)


def run_changed(run: Run, changed: Changed) -> Followed:
    """``run(changed.whole())``, where only what the rectangles change is computed.

    Args:
        run: images [n, C, H, W] to values [n, ...]; each of them depends on its own image only. It gets
            ``changed.images``, in inference mode.
        changed: the images.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    >>> changed = Changed(torch.rand(2, 1, 16, 16), [0, 1, 1], [(0, 0), (3, 9), (5, 5)], torch.rand(3, 1, 4, 4))
    >>> found = run_changed(net, changed)
    >>> bool((found.values - net(changed.whole())).abs().max() < 1e-5), found.work.windows < found.work.whole / 3
    (True, True)
    >>> run_changed(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(0)), changed).why
    'aten.flatten.using_ints'
    """
    groups = changed._groups()
    if changed.images.dtype not in CLOSE:
        return Followed(None, str(changed.images.dtype))
    with torch.inference_mode():
        follower = Follower([[changed.rows[one] for one in group] for group in groups])
        images = changed.images.clone()
        follower.known[images] = changed._map(*groups)
        with follower:
            values = run(images)
        found = follower.known.get(values) if isinstance(values, Tensor) else None
        if follower.why or found is None:
            return Followed(None, follower.why or "the output does not depend on the images", follower.work)
        parts = [complete(values, found, group, follower.rows[group]) for group in range(len(groups))]
        order = torch.tensor([one for group in groups for one in group], device=values.device).argsort()
        return Followed(torch.cat(parts)[order], work=follower.work)


def is_close(found: Tensor, expected: Tensor) -> bool:
    """Whether values are those of whole images, but for the last bits (:data:`CLOSE`, of the largest value)."""
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    off = float((found - expected).abs().max()) if expected.numel() else 0.0
    return found.shape == expected.shape and off <= CLOSE.get(expected.dtype, 0.0) * scale


def holds_scripts(model: nn.Module) -> bool:
    """Whether a model has scripted or traced parts, in which operations can run unseen."""
    return any(isinstance(module, torch.jit.ScriptModule) for module in model.modules())


class Follower(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Computes windows beside every operation on a map that is known.

    Attributes:
        rows: by group, of each window the row of the batch that runs.
        known: the maps, by the tensor that holds them as they are unchanged.
        why: the operation that cannot be followed; "" so far.
        work: so far.
    """

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows = [list(group) for group in rows]
        self.known: Any = WeakTensorKeyDictionary()
        self.why = ""
        self.work = Work()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would import its compiler at the first operation: seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.why or not any(one in self.known for one in tensors_in((args, kwargs))):
            return func(*args, **kwargs)
        done = follow(self, func, args, kwargs)
        if done is None:
            self.why = str(func)
            return func(*args, **kwargs)
        return done()

    def regions(self, value: Tensor, group: int, starts: Sequence[Sequence[int]], sizes: Sequence[int]) -> Tensor:
        """What the changed images have of a tensor in boxes of their own [n, ...]."""
        known = self.known.get(value)
        return cut(value, known, group, self.rows[group], starts, sizes)

    def count(self, out: Tensor, made: Sequence[Window], each: float, *, is_run: bool) -> None:
        """Note the cost of an operation with ``each`` multiplications per value of its output."""
        whole = (each + VALUE) * out[:1].numel()
        windows = sum((each + VALUE) * window.content.numel() for window in made)
        amount = sum(map(len, self.rows))
        self.work += Work(whole * len(out) * is_run, windows, whole * amount, len(made))

    def count_copied(self, part: Tensor) -> None:
        """Note that windows were copied together with their surroundings."""
        self.work += Work(windows=VALUE * part.numel())

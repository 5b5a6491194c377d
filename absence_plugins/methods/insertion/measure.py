"""The units' values of images, and of images with patches pasted in: of these only what a patch changes is computed.

Whether a network can be followed so (:mod:`absence_plugins.core.changed_parts`) is tried once, on patches of a first
image in both ways; where it cannot, or where it costs no less, pasted images run whole. Which of the two is decided by
counting what is computed, never by the clock: the same images give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from absence_plugins.core.changed_parts import Changed, Followed, Work, holds_scripts, is_close, run_changed
from absence_plugins.core.units import Layer

LESS = 0.9  # of the cost of whole images, from which windows are worth their bookkeeping
WORTH = 5e6  # multiplications that one pasted image must save
CALL = 1e7  # multiplications in the time of an operation on next to nothing


@dataclass(frozen=True)
class Paste:
    """One pasted image: ``pixels`` [C, h, w] at (y, x) of image number ``image`` of some images."""

    image: int
    y: int
    x: int
    pixels: Tensor


@dataclass
class Measure:
    """How the units' values of images are found.

    Attributes:
        run: images [n, C, H, W] to the layer's maps.
        layer: by which maps are reduced.
        units: of the layer.
        device: of the model.
        batch_size: images per forward.
        layout: of images on the device.
        share: the cost of one image as it is, of the windows of one pasted image, and of one whole; None: all images
            run whole.
    """

    run: Callable[[Tensor], Tensor]
    layer: Layer
    units: Sequence[int]
    device: torch.device
    batch_size: int
    layout: torch.memory_format = torch.contiguous_format
    share: Work | None = None

    def values(self, images: Sequence[Tensor]) -> Tensor:
        """[n, units] on the CPU; images of different sizes go through one by one."""
        alike = len({image.shape for image in images}) == 1
        parts = torch.split(torch.stack(list(images)), self.batch_size) if alike else [image[None] for image in images]
        return torch.cat([self._reduce(self.run(self._send(part))) for part in parts])

    def pasted_values(self, images: Sequence[Tensor], pastes: Sequence[Paste]) -> Tensor:
        """[pastes, units] on the CPU; images of one shape, and pastes of one size, run together."""
        together: dict[tuple[torch.Size, torch.Size], list[int]] = {}
        for one, paste in enumerate(pastes):
            together.setdefault((images[paste.image].shape, paste.pixels.shape), []).append(one)
        found = torch.empty(len(pastes), len(self.units))
        for every in together.values():
            for start in range(0, len(every), self.batch_size):
                chosen = every[start : start + self.batch_size]
                found[chosen] = self._of_batch(images, [pastes[one] for one in chosen])
        return found

    def share_of(self, images: int, pastes: int) -> float:
        """What a batch of pasted images, made of so many images, costs of what it costs whole; 1.0: it runs whole."""
        if self.share is None:
            return 1.0
        cost = images * self.share.clean + pastes * self.share.windows + CALL * self.share.calls
        whole = pastes * self.share.whole
        return cost / whole if cost <= LESS * whole and whole - cost >= WORTH * pastes else 1.0

    def settle(self, model: nn.Module, image: Tensor, size: int) -> None:
        """Find out how images run: in which layout, and whether only what a patch of ``size`` changes is computed."""
        if self.device.type == "cpu":
            self.layout = torch.channels_last  # convolutions are faster with it
            with suppress(RuntimeError):  # the model calls .view() on what a convolution returns
                self.values([image])
                self._try_windows(model, image, size)
                return
            self.layout = torch.contiguous_format
        self.values([image])
        self._try_windows(model, image, size)

    def _try_windows(self, model: nn.Module, image: Tensor, size: int) -> None:
        height, width = image.shape[1:]
        room, across = height - size, width - size
        if room < 0 or across < 0 or holds_scripts(model):
            return
        images = [image, image.flip(2)]
        thirds = [(room * down // 3, across * right // 3) for down, right in ((1, 2), (2, 1), (1, 1), (2, 2))]
        spots = [(0, 0), *thirds, (room, across)]
        pastes = [
            Paste(one % 2, y, x, images[one % 2].flip(1)[:, y : y + size, x : x + size])
            for one, (y, x) in enumerate(spots)
        ]
        changed, found = self._changed(images, pastes), Followed(None)
        with suppress(Exception):  # a model that does not run while it is followed runs whole
            found = run_changed(self.run, changed)
        if found.values is None or not is_close(found.values, self.run(changed.whole())):
            return
        work = found.work
        each = len(pastes)
        self.share = Work(work.clean / len(images), work.windows / each, work.whole / each, work.calls)

    def _of_batch(self, images: Sequence[Tensor], pastes: Sequence[Paste]) -> Tensor:
        changed = self._changed(images, pastes)
        if self.share_of(len(changed.images), len(pastes)) < 1:
            found = run_changed(self.run, changed).values
            if found is not None:
                return self._reduce(found)
        return self._reduce(self.run(changed.whole()))

    def _changed(self, images: Sequence[Tensor], pastes: Sequence[Paste]) -> Changed:
        numbers = sorted({paste.image for paste in pastes})
        return Changed(
            self._send(torch.stack([images[number] for number in numbers])),
            [numbers.index(paste.image) for paste in pastes],
            [(paste.y, paste.x) for paste in pastes],
            self._send(torch.stack([paste.pixels for paste in pastes])),
        )

    def _send(self, images: Tensor) -> Tensor:
        return images.to(self.device).contiguous(memory_format=self.layout)

    def _reduce(self, maps: Tensor) -> Tensor:
        return self.layer.reduced(maps).float().cpu()[:, list(self.units)]

"""Image files as a model takes them, one after the other, read ahead: what every command on a folder reads through.

Scans of :class:`~absence_plugins.commands.image_folder.FolderImages` read by number, through
:func:`~absence_plugins.methods.patches.images.read`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from absence_plugins.commands.preprocessing import Preprocessing
from absence_plugins.data.reading_ahead import read_ahead


def read_inputs(files: Iterable[Path], preprocessing: Preprocessing) -> Iterator[Tensor]:
    """Model inputs [C, size, size], in the order of the files; a few are on their way while others are used.

    Raises:
        UnreadableImage: in its turn, a file that is no image.
    """
    return read_ahead(preprocessing.input, files)


def read_batches(read: Callable[[Path], Tensor], files: Sequence[Path], wanted: Sequence[range]) -> Iterator[Tensor]:
    """Batches [B, ...] of images, read ahead: of each the numbers of its files; ``read`` is called in several threads.

    Raises:
        UnreadableImage: in its turn, a file that is no image.
    """
    images = read_ahead(read, [files[number] for numbers in wanted for number in numbers])
    for numbers in wanted:
        yield torch.stack(list(islice(images, len(numbers))))


def collect(images: Iterable[Tensor], count: int) -> Tensor:
    """``count`` tensors of one shape as one, without a second copy of all of them.

    >>> collect(iter([torch.zeros(2), torch.ones(2)]), 2).tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    found: Tensor | None = None
    for place, image in enumerate(images):
        if found is None:
            found = image.new_empty(count, *image.shape)
        found[place] = image
    if found is None:
        raise ValueError("there are no images to read")
    return found

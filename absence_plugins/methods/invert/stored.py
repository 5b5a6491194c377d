"""Arrays that lie in a file: read in parts, so that no more than a part of them is in memory."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

from absence_plugins.methods.invert.bits import Array


def is_stored(values: Any) -> bool:
    """Whether they are read in parts: a memory-mapped numpy array, or what has ``shape``, ``dtype`` and slices, as
    datasets of h5py and zarr.
    """
    if isinstance(values, np.ndarray):
        return isinstance(values, np.memmap)
    has_all = all(hasattr(values, name) for name in ("shape", "dtype", "__getitem__"))
    return has_all and not hasattr(values, "untyped_storage") and not hasattr(values, "columns")


def read_part(values: Any, *index: slice) -> Array:
    """A part of them, copied. Pages of a mapped file that this read do not stay in the process."""
    found = np.array(values[index])
    pages = getattr(values, "_mmap", None)
    if pages is not None and getattr(values, "mode", None) in ("r", "r+") and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)  # of a file that others share or nobody writes, so that nothing is lost
    return found

"""The figure that fits a kind of data."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from absence_plugins.core.kinds import Kind, SignalKind, TableKind, TextKind, VolumeKind
from absence_plugins.report.plots.signal import signal_figure
from absence_plugins.report.plots.table_row import table_figure
from absence_plugins.report.plots.text import text_figure
from absence_plugins.report.plots.volume import volume_figure


def kind_figure(kind: Kind, signed: Tensor, x: Tensor, reference: Tensor | None = None, **options: Any) -> Figure:
    """Draw one sample's map as its kind of data is read: bars, colored tokens, a line, or three slices.

    Args:
        kind: a :class:`~absence_plugins.TableKind`, ``TextKind``, ``SignalKind`` or ``VolumeKind``.
        signed: R of one sample, in units of the explained output.
        x: the sample; of a text its token ids.
        reference: what it is compared with, one or several [k, ...]: their mean is shown, of several texts the first.
            None: none is shown.
        options: ``ax``, ``title``, ``positive``, ``negative``, and what :func:`table_figure`, :func:`text_figure`,
            :func:`signal_figure` or :func:`volume_figure` takes.

    The sign: red raises the output, blue holds it down.

    Raises:
        TypeError: ``kind`` is no kind of data.
        ValueError: shapes that do not fit it.

    Example:
        >>> import torch
        >>> kind_figure(SignalKind(), torch.ones(4), torch.zeros(4)).axes[0].get_xlabel()
        'sample'
    """
    if isinstance(kind, TableKind):
        return table_figure(kind, signed, x, reference, **options)
    if isinstance(kind, SignalKind):
        return signal_figure(kind, signed, x, reference, **options)
    if isinstance(kind, VolumeKind):
        return volume_figure(kind, signed, x, reference, **options)
    if isinstance(kind, TextKind):
        return text_figure(kind, signed, x, reference, **options)
    raise TypeError(f"kind is a {type(kind).__name__}; pass a TableKind, TextKind, SignalKind or VolumeKind")


def fits_kind(kind: Kind, signed: Tensor, x: Tensor) -> bool:
    """Whether a map is one of the sample itself, not of a layer behind it.

    >>> import torch
    >>> fits_kind(SignalKind(), torch.zeros(3, 5), torch.zeros(1, 5))
    False
    """
    return signed.shape[: x.dim()] == x.shape and (signed.dim() == x.dim() or isinstance(kind, TextKind))

"""The units of a layer on a whole data set, batch by batch; kept in a folder where one is named."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from absence_plugins.core.devices import device_of
from absence_plugins.core.units import Layer
from absence_plugins.methods.batches import Batches
from absence_plugins.methods.kept_rows import KeptRows


def layer_values(
    model: nn.Module,
    layer: str | Layer,
    batches: Batches,
    *,
    rows: Callable[[Tensor], Tensor] | None = None,
    kept: KeptRows | None = None,
    first_only: bool = False,
    progress: bool = True,
) -> Tensor:
    """Every unit of a layer on every sample: [N, U] on the CPU.

    The model runs in evaluation mode, no further than the layer, on its own device. Under ``torchrun`` the ranks take
    the batches in turn, each reads its own only, and all get the values, which are bit-identical for every number of
    ranks (with the same threads per process).

    Args:
        model: as before afterwards.
        layer: a name, or a :class:`~absence_plugins.Layer`.
        batches: of model inputs [B, ...].
        rows: from the layer's maps [B, U, ...] to what is wanted of each sample [B, V]; default: the layer's own
            reduction.
        kept: where the rows are kept: those that are there are not computed again.
        first_only: of several ranks the first gets the values, the others [0, U].
        progress: show a progress bar.

    Sign: that of the activation, before the nonlinearity that the layer ends in.

    Raises:
        ValueError: what :class:`~absence_plugins.Layer` rejects, no samples.
        RankLost: another rank has ended.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())
    >>> net[0].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])
    >>> samples = Batches.of(torch.tensor([[0.0, 3.0], [1.0, 1.0]]), 1)
    >>> layer_values(net, "1", samples, progress=False).tolist()
    [[-3.0, 3.0], [0.0, 1.0]]
    """
    at = Layer.of(layer)
    read = at.reduced if rows is None else rows
    if not batches.count:
        raise ValueError("there are no samples to read the layer on")
    device = device_of(model)
    with KeptRows(count=batches.count) if kept is None else kept as kept:
        with at.reading(model) as run:
            kept.fill(batches, lambda batch: read(run(batch.to(device))), what=f"running {at}", progress=progress)
        return kept.joined(first_only=first_only)

"""The units of a layer on a whole data set, batch by batch; kept in a folder where one is named."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, nn
from tqdm.auto import tqdm

from absence_plugins.core.devices import device_of
from absence_plugins.core.units import Layer
from absence_plugins.methods.checkpoint import KeptRows


def layer_values(
    model: nn.Module,
    layer: str | Layer,
    batches: Iterable[Tensor],
    *,
    rows: Callable[[Tensor], Tensor] | None = None,
    total: int | None = None,
    kept: KeptRows | None = None,
    progress: bool = True,
) -> Tensor:
    """Every unit of a layer on every sample: [N, U] on the CPU.

    The model runs in evaluation mode, no further than the layer, on its own device.

    Args:
        model: as before afterwards.
        layer: a name, or a :class:`~absence_plugins.Layer`.
        batches: of model inputs [B, ...]; with ``kept`` those behind the rows that are there.
        rows: from the layer's maps [B, U, ...] to what is wanted of each sample [B, V]; default: the layer's own
            reduction.
        total: samples, for the progress bar.
        kept: where the rows are kept.
        progress: show a progress bar.

    Sign: that of the activation, before the nonlinearity that the layer ends in.

    Raises:
        ValueError: what :class:`~absence_plugins.Layer` rejects, no samples.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())
    >>> net[0].weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])
    >>> layer_values(net, "1", torch.tensor([[0.0, 3.0], [1.0, 1.0]]).split(1), progress=False).tolist()
    [[-3.0, 3.0], [0.0, 1.0]]
    """
    at = Layer.of(layer)
    read = at.reduced if rows is None else rows
    device = device_of(model)
    kept = KeptRows() if kept is None else kept
    shown = tqdm(total=total, initial=len(kept), desc=f"running {at}", disable=not progress)
    with shown as bar, kept, at.reading(model) as run:
        seen = len(kept)
        for batch in batches:
            seen += len(batch)
            if seen > len(kept):  # else they are in a file behind one that was made again
                kept.append(read(run(batch.to(device))).cpu())
            bar.update(len(batch))
    if not len(kept):
        raise ValueError("there are no samples to read the layer on")
    return kept.joined().clone()  # a copy: what was made in inference mode cannot take part in autograd

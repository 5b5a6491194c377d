"""Features of a sparse autoencoder as units of a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Features:
    """Features f(a) of a layer's activations, each with a direction that it writes: a is about f(a) @ decoder + a bias.

    The relevance of feature i at a position is (m . d_i) (f_i(x) - f_i(r)), with m the layer's multiplier and d_i the
    decoder's row. What the autoencoder does not reconstruct is no feature's and is counted as the rest, so that
    features and rest add up to u(x) - u(r) exactly.

    Attributes:
        encode: activations [..., C] to features [..., F], as the autoencoder's encoder with its rectifier.
        decoder: [F, C], a feature's direction in a row.
    """

    encode: Callable[[Tensor], Tensor]
    decoder: Tensor

    def split(self, multiplier: Tensor, x: Tensor, reference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Relevance and values of maps [B, C, ...]: R [B, F], f(x) [B, F] and f(r) [B, F] (means over positions).

        Raises:
            ValueError: another number of channels or features than the decoder has.
        """
        flat = [
            maps.flatten(2).transpose(1, 2) if maps.dim() > 2 else maps[:, None] for maps in (multiplier, x, reference)
        ]
        decoder = self.decoder.detach().to(flat[0])
        if decoder.dim() != 2 or decoder.shape[1] != flat[0].shape[-1]:
            raise ValueError(
                f"the decoder has shape {tuple(decoder.shape)}; of a layer of {flat[0].shape[-1]} channels it must be "
                f"[features, {flat[0].shape[-1]}]"
            )
        with torch.no_grad():
            here, there = self.encode(flat[1]), self.encode(flat[2])
        if here.shape != (*flat[1].shape[:-1], len(decoder)):
            raise ValueError(
                f"encode returned shape {tuple(here.shape)} for {tuple(flat[1].shape)} and {len(decoder)} features"
            )
        relevance = (flat[0] @ decoder.T) * (here - there)
        return relevance.sum(1), here.mean(1), there.mean(1)

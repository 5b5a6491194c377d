"""An absence that is encoded by a unit inside a vision transformer."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from absence_plugins.core.units import Unit
from absence_plugins.data.planted.problem import Planted
from absence_plugins.data.planted.shapes import SIZE, ShapeProblem
from absence_plugins.data.planted.training import Recipe
from absence_plugins.data.planted.transformer import TransformerBlock, transformer_network

UNIT = Unit("block2.widen", 7)  # of the MLP, before its GELU, in the mean over the tokens
RECIPE = Recipe(epochs=6, batch=64, rate=7e-3)
SCENES = 1600


@cache
def transformer_unit(seed: int = 0) -> Planted:
    """Is the plus missing? A unit of the second block's MLP encodes its absence, in the mean over all tokens.

    ``full_model`` is a vision transformer of two blocks, trained to tell by its logits whether the plus is there and by
    this ``unit`` as well; ``model`` is the same modules up to the unit, put out as logits (-u, u). Region: the plus.
    """
    problem = ShapeProblem("plus", ("square", "dot", "ring", "horizontal", "vertical"), seed)
    problem.train_scenes = SCENES
    full = transformer_network(SIZE, blocks=2)
    problem.teach(_Supervised(full), RECIPE)
    widen = full.get_submodule("block2.widen")
    assert isinstance(widen, nn.Linear)
    signs = torch.zeros(2, widen.out_features)
    signs[:, UNIT.index] = torch.tensor([-1.0, 1.0])
    parts = OrderedDict(full[:3].named_children())
    model = nn.Sequential(parts | {"block2": UpToUnit(full.get_submodule("block2"), signs)}).eval()
    return replace(problem.asked(model), full_model=full, unit=UNIT)


class UpToUnit(nn.Module):
    """A block up to its MLP's first layer, shared with it: tokens [N, T, D] to (-u, u) [N, 2]."""

    def __init__(self, block: nn.Module, signs: Tensor) -> None:
        super().__init__()
        assert isinstance(block, TransformerBlock)
        self.norm1, self.attention, self.sum1 = block.norm1, block.attention, block.sum1
        self.norm2, self.widen = block.norm2, block.widen
        with torch.device("meta"):
            self.signs = nn.Linear(signs.shape[1], 2, bias=False)
        self.signs.weight = nn.Parameter(signs)

    def forward(self, tokens: Tensor) -> Tensor:
        """The mean over the tokens of the unit, with both signs."""
        tokens = self.sum1(torch.stack([tokens, self.attention(self.norm1(tokens))], -1))
        result: Tensor = self.signs(self.widen(self.norm2(tokens)).mean(1))
        return result


class _Supervised(nn.Module):
    """Two heads: the logits, and (-u, u) of the unit: [N, C, H, W] to [N, 2, 2]."""

    def __init__(self, full: nn.Sequential) -> None:
        super().__init__()
        self.full = full

    def forward(self, images: Tensor) -> Tensor:
        """Both; the unit is amplified, as its mean over 37 tokens is small."""
        tokens = self.full[:3](images)
        block = self.full.get_submodule("block2")
        assert isinstance(block, TransformerBlock)
        inner = block.sum1(torch.stack([tokens, block.attention(block.norm1(tokens))], -1))
        hidden = block.widen(block.norm2(inner))
        outer = block.sum2(torch.stack([inner, block.narrow(block.gelu(hidden))], -1))
        unit = 5 * hidden[:, :, UNIT.index].mean(1)
        return torch.stack([self.full[4:](outer), torch.stack([-unit, unit], 1)], 1)

"""A small vision transformer, as modules that hooks can see, but for the attention itself: that is one call of
torch.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from absence_plugins.data.planted.networks import Sum

PATCH = 4


class Tokens(nn.Module):
    """Embedded patches [N, D, H, W] to tokens [N, 1 + H W, D]: a class token in front, learned positions added."""

    def __init__(self, width: int, patches: int) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, patches, width))

    def forward(self, patches: Tensor) -> Tensor:
        """The class token, then the patches row by row."""
        tokens = patches.flatten(2).transpose(1, 2) + self.positions
        return torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], 1)


class ClassToken(nn.Module):
    """Tokens [N, T, D] to the first one [N, D]."""

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, T, D] to the first token [N, D]."""
        return tokens[:, 0]


class SelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al., 2017): tokens [N, T, D] to [N, T, D]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inwards = nn.Linear(width, 3 * width)  # queries, keys, values
        self.outwards = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Every token reads from all: softmax(Q K^T / sqrt(D / heads)) V, per head."""
        count, length, width = tokens.shape
        split = self.inwards(tokens).view(count, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        read = F.scaled_dot_product_attention(query, key, value)
        result: Tensor = self.outwards(read.transpose(1, 2).reshape(count, length, width))
        return result


class TransformerBlock(nn.Module):
    """t + attention(norm(t)), then t + MLP(norm(t)) with GELU: tokens [N, T, D] to [N, T, D]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.sum1 = Sum()
        self.norm2 = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 2 * width)
        self.gelu = nn.GELU()
        self.narrow = nn.Linear(2 * width, width)
        self.sum2 = Sum()

    def forward(self, tokens: Tensor) -> Tensor:
        """Both residual branches, one after the other."""
        tokens = self.sum1(torch.stack([tokens, self.attention(self.norm1(tokens))], -1))
        mixed = self.narrow(self.gelu(self.widen(self.norm2(tokens))))
        result: Tensor = self.sum2(torch.stack([tokens, mixed], -1))
        return result


def transformer_network(size: int, width: int = 32, heads: int = 4, blocks: int = 1) -> nn.Sequential:
    """Patches of 4 x 4 of ``size`` x ``size`` pixels, pre-norm blocks (Dosovitskiy et al., ICLR 2021); two logits."""
    with torch.device("meta"):
        return nn.Sequential(
            OrderedDict(
                patches=nn.Conv2d(1, width, PATCH, stride=PATCH),
                tokens=Tokens(width, (size // PATCH) ** 2),
                **{f"block{number}": TransformerBlock(width, heads) for number in range(1, blocks + 1)},
                norm=nn.LayerNorm(width),
                readout=ClassToken(),
                linear=nn.Linear(width, 2),
            )
        )

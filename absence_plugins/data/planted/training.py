"""Training that gives the same weights for the same generator, on one thread."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from absence_plugins.data.planted.transformer import Tokens
from absence_plugins.data.threads import one_thread

WEIGHT_DECAY = 1e-2
EMBEDDING_SPREAD = 0.02  # of class tokens and positions, as in ViT


@dataclass(frozen=True)
class Recipe:
    """How long and how fast: AdamW with decoupled weight decay, the one-cycle schedule up to ``rate``."""

    epochs: int = 4
    batch: int = 32
    rate: float = 1e-2


USUAL = Recipe()


def train(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator, recipe: Recipe = USUAL) -> None:
    """Initialize ``model`` from ``generator`` and fit its logits to ``labels`` [N]; leaves it in eval mode.

    The logits are [N, K], or [N, heads, K]: then every head is fitted to the labels.

    Every logit has a sigmoid cross-entropy of its own. Softmax cross-entropy fixes only the difference of two logits:
    with one seed in five the logit of the class without the key then hardly encoded the absence (4.9 without it, 1.5
    with it). On one thread, so that the number of cores does not change the result.
    """
    with one_thread():
        _initialize(model, generator)
        with torch.enable_grad():
            _fit(model.train(), images, labels, generator, recipe)
    model.zero_grad(set_to_none=True)
    model.eval()


def _initialize(model: nn.Module, generator: torch.Generator) -> None:
    """Storage, He's uniform weights, no biases; norms start as the identity, tokens and positions near 0.

    Behind most layers of a transformer there is no rectifier, so its weights start smaller by sqrt(2).
    """
    model.to_empty(device="cpu")
    has_tokens = any(isinstance(module, Tokens) for module in model.modules())
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            module.reset_parameters()  # ones and zeros, nothing random
        elif isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
            nn.init.kaiming_uniform_(
                module.weight, nonlinearity="linear" if has_tokens else "relu", generator=generator
            )
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, Tokens):
            for embedding in module.parameters():
                nn.init.normal_(embedding, std=EMBEDDING_SPREAD, generator=generator)


def _fit(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator, recipe: Recipe) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=WEIGHT_DECAY, fused=True)
    steps = recipe.epochs * -(-len(images) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=recipe.rate, total_steps=steps)
    images = images.contiguous(memory_format=torch.channels_last)
    for _ in range(recipe.epochs):
        order = torch.randperm(len(images), generator=generator)
        for batch in torch.split(order, recipe.batch):
            logits = model(images[batch])
            wanted = F.one_hot(labels[batch], logits.shape[-1]).to(logits)
            if logits.dim() == 3:
                wanted = wanted[:, None].expand_as(logits)
            loss = F.binary_cross_entropy_with_logits(logits, wanted)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()

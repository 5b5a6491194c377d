"""Training that gives the same weights for the same generator, on one thread."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from absence_plugins.data.threads import one_thread

EPOCHS = 4
BATCH_SIZE = 32
LEARNING_RATE = 1e-2
WEIGHT_DECAY = 1e-2


def train(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> None:
    """Initialize ``model`` from ``generator`` and fit its logits [N, K] to ``labels`` [N]; leaves it in eval mode.

    Every logit has a sigmoid cross-entropy of its own. Softmax cross-entropy fixes only the difference of two logits:
    with one seed in five the logit of the class without the key then hardly encoded the absence (4.9 without it, 1.5
    with it). On one thread, so that the number of cores does not change the result.
    """
    with one_thread():
        _initialize(model, generator)
        with torch.enable_grad():
            _fit(model.train(), images, labels, generator)
    model.zero_grad(set_to_none=True)
    model.eval()


def _initialize(model: nn.Module, generator: torch.Generator) -> None:
    """Storage, He's uniform weights, no biases; batch norm starts as the identity."""
    model.to_empty(device="cpu")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()  # ones and zeros, nothing random
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_uniform_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _fit(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    steps = EPOCHS * -(-len(images) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LEARNING_RATE, total_steps=steps)
    images = images.contiguous(memory_format=torch.channels_last)
    for _ in range(EPOCHS):
        order = torch.randperm(len(images), generator=generator)
        for batch in torch.split(order, BATCH_SIZE):
            logits = model(images[batch])
            wanted = F.one_hot(labels[batch], logits.shape[1]).to(logits)
            loss = F.binary_cross_entropy_with_logits(logits, wanted)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()

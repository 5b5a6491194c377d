"""Train the bundled digits network: ``python -m absence_plugins.data.train``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import trange  # type: ignore[import-untyped,unused-ignore]

from absence_plugins.core.checks import check_integer
from absence_plugins.core.files import write_whole
from absence_plugins.data.digits import WEIGHTS_FILE, digits_cnn, load_digits
from absence_plugins.data.threads import one_thread

_BATCH_SIZE = 64
_LEARNING_RATE = 3e-3
_WEIGHT_DECAY = 1e-2
_MAX_SHIFT = 3
_MAX_SPECKLE = 0.5


def train_digits_cnn(*, seed: int = 0, epochs: int = 30, progress: bool = True) -> tuple[nn.Sequential, float]:
    """Train :func:`~absence_plugins.data.digits.digits_cnn` on the digits' training part.

    Cross-entropy with AdamW and a one-cycle learning rate; images are shifted by up to 3 pixels
    and half of them are speckled with bright pixels, so that a logit is held down by strokes that
    belong to another digit rather than by any added brightness.
    All randomness comes from ``seed``; the global random state is neither used nor changed.

    Args:
        seed: Seed of the weights, the order of the images and the shifts.
        epochs: Passes over the training images.
        progress: Show a progress bar.

    Returns:
        The network in eval mode, and its accuracy (0..1) on the held-out test part.

    Raises:
        ValueError: ``epochs`` is smaller than 1.
    """
    check_integer("epochs", epochs)
    data = load_digits()
    generator = torch.Generator().manual_seed(seed)
    model = digits_cnn(pretrained=False, seed=seed).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    steps = -(-len(data.train_labels) // _BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=_LEARNING_RATE, total_steps=epochs * steps)
    with torch.enable_grad():
        for _ in trange(epochs, desc="training digits_cnn", disable=not progress):
            order = torch.randperm(len(data.train_labels), generator=generator)
            for batch in torch.split(order, _BATCH_SIZE):
                images = _shift(data.train_images[batch], generator)
                images = _speckle(images, generator)
                loss = F.cross_entropy(model(images), data.train_labels[batch])
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
    model.eval()
    model.zero_grad(set_to_none=True)
    return model, accuracy(model, data.test_images, data.test_labels)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of ``images [N, C, H, W]`` whose largest logit is at ``labels [N]``."""
    return float((model(images).argmax(1) == labels).double().mean())


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: train, write the weights, print the held-out accuracy."""
    parser = argparse.ArgumentParser(
        prog="python -m absence_plugins.data.train", description="Train the bundled digits network."
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name(WEIGHTS_FILE))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    # Sums over threads depend on their number: one thread gives the same file on every machine
    # with the same torch build.
    with one_thread():
        model, held_out = train_digits_cnn(seed=options.seed)
    weights = {name: weight.contiguous() for name, weight in model.state_dict().items()}
    write_whole(options.out, save(weights))
    print(f"held-out accuracy {held_out:.4f}; weights written to {options.out}")


def _shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift every image ``[N, 1, H, W]`` by its own few pixels; what enters is background (0)."""
    count, _, height, width = images.shape
    padded = F.pad(images, [_MAX_SHIFT] * 4)
    offsets = torch.randint(0, 2 * _MAX_SHIFT + 1, (2, count, 1, 1), generator=generator)
    rows = offsets[0] + torch.arange(height).view(1, height, 1)
    columns = offsets[1] + torch.arange(width).view(1, 1, width)
    return padded[torch.arange(count).view(count, 1, 1), 0, rows, columns].unsqueeze(1)


def _speckle(images: Tensor, generator: torch.Generator) -> Tensor:
    """Brighten random pixels, up to half of them, in every second image ``[N, 1, H, W]``."""
    density = torch.rand(len(images), 1, 1, 1, generator=generator) * _MAX_SPECKLE
    density[::2] = 0
    hit = torch.rand(images.shape, generator=generator) < density
    speckle = torch.rand(images.shape, generator=generator) * hit
    return torch.maximum(images, speckle)


if __name__ == "__main__":
    main()

"""What a user's model says of images: its outputs, and the class that it predicts."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from absence_plugins.core.outputs import class_scores
from absence_plugins.core.scores import run_scores

BATCH = 16  # images per forward


def read_outputs(model: nn.Module, x: Tensor) -> Tensor:
    """The model's outputs [B, K] or maps of them [B, K, H, W]; of one output per image [B, 1].

    Of a model that ends in a softmax or sigmoid the logits in front of it.

    Raises ValueError for another shape.
    """
    return read_scores(model, x)[0]


def read_scores(model: nn.Module, x: Tensor) -> tuple[Tensor, str]:
    """As :func:`read_outputs`, and what the model ends in: "softmax", "log_softmax", "sigmoid" or ""."""
    outputs, ending = run_scores(model, (x,), samples=len(x))
    if outputs.dim() not in (1, 2, 4):
        raise ValueError(
            f"the model must return one row of logits per image, or maps of logits [B, K, H, W], got "
            f"{tuple(outputs.shape)}; wrap it so that it does"
        )
    return (outputs[:, None] if outputs.dim() == 1 else outputs), ending


def class_of(outputs: Tensor) -> Tensor:
    """The predicted class [N] in outputs [N, K, ...]; of a single output 1 where it is above 0.

    >>> class_of(torch.tensor([[-1.0], [2.0]]))
    tensor([0, 1])
    """
    columns = class_scores(outputs)
    return columns.argmax(1) if columns.shape[1] > 1 else (columns[:, 0] > 0).long()


def predict_classes(model: nn.Module, images: Tensor, *, progress: bool = False) -> tuple[Tensor, int]:
    """The class that the model predicts for every image [N], and the number of its outputs.

    Of a single output: 1 where it is above 0.

    >>> predict_classes(nn.Flatten(), torch.tensor([[1.0, 2.0], [4.0, 3.0]]))
    (tensor([1, 0]), 2)
    """
    found, count = [], 0
    bar = tqdm(total=len(images), desc="asking the model about the references", unit="image", disable=not progress)
    with torch.no_grad(), bar:
        for part in torch.split(images, BATCH):
            outputs = read_outputs(model, part)
            count = class_scores(outputs).shape[1]
            found.append(class_of(outputs))
            bar.update(len(part))
    return torch.cat(found).cpu(), count

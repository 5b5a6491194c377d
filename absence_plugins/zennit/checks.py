"""What cannot be explained, rejected before the forward: empty batches, integers, training mode; names that match
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from absence_plugins.core.reading import find_module
from absence_plugins.core.training import Draws, describe_training, find_drawing, find_training

NOT_ALIKE = "input and reference do not pass it alike"


def check_input(input: Tensor) -> None:
    """Raises ValueError for a batch without samples, and for integers."""
    if input.dim() == 0 or len(input) == 0:
        raise ValueError(f"the input has shape {tuple(input.shape)}; it needs at least one sample along its first axis")
    if not (input.is_floating_point() or input.is_complex()):
        raise ValueError(
            f"the input is {str(input.dtype).removeprefix('torch.')}, and relevance needs floating point numbers: pass "
            "input.float(); of token ids explain the embedding, relevance(model, ids, reference_ids) of "
            "absence_plugins.relevance, or AbsenceLayerIntegratedGradients(model, model.embedding) of "
            "absence_plugins.captum"
        )


@contextmanager
def explained_integers(input: Tensor) -> Iterator[None]:
    """In this block torch's error about integers without gradients is said in our words. Raises ValueError."""
    try:
        yield
    except RuntimeError as error:
        try:
            check_input(input)
        except ValueError as better:
            raise better from error
        raise


def check_mode(root: Any) -> None:
    """Reject training mode where it would make x and its reference pass differently. Raises ValueError."""
    for name, module in root.named_modules() if isinstance(root, nn.Module) else ():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise ValueError(
                f"{name} ({type(module).__name__}) takes its statistics from the batch (track_running_stats=False), in "
                "which samples mix; there is no rule for it"
            )
    active = find_training(root)
    if active:
        raise ValueError(describe_training(*active, NOT_ALIKE))


def check_drawing(draws: Draws, model: Any, x: Tensor) -> None:
    """Reject a model that draws at random in training mode inside a forward of its own. Raises ValueError."""
    drawing = find_drawing(model, lambda: model(x.clone()), [x]) if draws.happened else None
    if drawing and drawing[1].training:
        draws.restore()
        raise ValueError(describe_training(*drawing, NOT_ALIKE))


def check_names(composite: Any, root: nn.Module) -> None:
    """Reject a composite by names (``name_map``) of which none is a module. Raises ValueError with the nearest
    names.
    """
    names = [name for entry, _rule in getattr(composite, "name_map", None) or [] for name in entry]
    if names and not set(names) & {name for name, _module in root.named_modules()}:
        try:
            find_module(root, names[0])
        except ValueError as error:
            raise ValueError(f"no name of {type(composite).__name__} fits a module: {error}") from None

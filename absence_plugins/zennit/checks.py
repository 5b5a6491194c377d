"""What cannot be explained, rejected before the forward: empty batches, training mode."""

from __future__ import annotations

from torch import Tensor, nn

RANDOM_OR_MIXING = (
    nn.modules.dropout._DropoutNd,
    nn.modules.batchnorm._BatchNorm,
    nn.RReLU,
)


def check_input(input: Tensor) -> None:
    """Raises ValueError for a batch without samples."""
    if input.dim() == 0 or len(input) == 0:
        raise ValueError(f"the input has shape {tuple(input.shape)}; it needs at least one sample along its first axis")


def check_mode(root: nn.Module) -> None:
    """Reject training mode where it would make x and its reference pass differently. Raises ValueError."""
    for name, module in root.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise ValueError(
                f"{name} ({type(module).__name__}) takes its statistics from the batch (track_running_stats=False), in which "
                "samples mix; there is no rule for it"
            )
        if module.training and isinstance(module, RANDOM_OR_MIXING):
            raise ValueError(
                f"{name} ({type(module).__name__}) is in training mode, in which input and reference do not pass it alike; "
                "call model.eval() first"
            )

"""What is decided once per call, on the real inputs: which output, which references, which view."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from captum.attr import NoiseTunnel
from torch import Tensor

from absence_plugins.captum.calls import extra_arguments, plain
from absence_plugins.core.choices import Choice

TUNNEL_CODE = plain(NoiseTunnel.attribute).__code__
TUNNEL_DEPTH = 12  # frames between NoiseTunnel.attribute and the plan


@dataclass
class Plan:
    """One call of B samples; inside a NoiseTunnel the inputs are ``copies`` noisy copies of each."""

    arguments: dict[str, Any]
    inputs: tuple[Tensor, ...]
    real: tuple[Tensor, ...]
    copies: int = 1
    choice: Choice | None = None
    output: Tensor = field(default_factory=lambda: torch.empty(0))  # u(x) of the real samples [B]
    columns: int = 1  # outputs the host can select from
    view: Literal["target", "nontarget"] = "target"
    references: tuple[Tensor, ...] | None = None  # per input [copies * B, k, ...]

    @property
    def is_tuple(self) -> bool:
        """Whether the caller passed a tuple of inputs, and gets a tuple of maps."""
        return isinstance(self.arguments["inputs"], tuple)

    @property
    def real_repeated(self) -> tuple[Tensor, ...]:
        """The real samples, once for every copy."""
        return self.real if self.copies == 1 else tuple(part.repeat_interleave(self.copies, 0) for part in self.real)

    def extra(self, copies: int) -> tuple[Any, ...]:
        """Additional forward arguments, one entry for each of ``copies``."""
        return tuple(  # Captum repeats tensors only
            every(value, copies) if isinstance(value, Tensor) else value for value in extra_arguments(self.arguments)
        )

    def target(self) -> Any:
        """The chosen output as the host's target, once for every copy."""
        assert self.choice is not None
        index = self.choice.index
        if isinstance(index, Tensor):
            return index.repeat_interleave(self.copies)
        return [entry for entry in index for _ in range(self.copies)]

    def each_reference(self) -> Iterator[tuple[Tensor, ...] | None]:
        """The references one after the other (per input [copies * B, ...]); None: as the caller said."""
        if self.references is None:
            yield None
        else:
            for column in range(self.references[0].shape[1]):
                yield tuple(part[:, column] for part in self.references)


def every(value: Any, copies: int) -> Any:
    """One entry for each real sample out of a per-sample argument that was repeated for noisy copies."""
    if (
        copies == 1
        or not isinstance(value, (Tensor, list))
        or (isinstance(value, Tensor) and value.dim() == 0)
        or len(value) == 1
    ):
        return value
    return value[::copies]


def real_inputs(method: Any, inputs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], int]:
    """The inputs whose noisy copies a NoiseTunnel hands to ``method``, and how many copies; else the inputs, 1.

    The choices belong to the real input, but NoiseTunnel passes nothing but the copies, so the originals
    are read from its own frame.

    Raises:
        ValueError: a tunnel type that squares the maps.
    """
    frame, left, real = inspect.currentframe(), TUNNEL_DEPTH, inputs
    while left and frame is not None and (frame := frame.f_back) is not None:
        left -= 1
        if frame.f_code is TUNNEL_CODE and frame.f_locals["self"].attribution_method is method:
            kind, originals = frame.f_locals["nt_type"], frame.f_locals["inputs"]
            if kind != "smoothgrad":
                raise ValueError(
                    f"nt_type={kind!r} has no sign, so it cannot tell evidence for from evidence against; use nt_type='smoothgrad'"
                )
            real = tuple(part.detach() for part in (originals if isinstance(originals, tuple) else (originals,)))
            method, left = frame.f_locals["self"], TUNNEL_DEPTH  # a tunnel may itself be in a tunnel
    return real, inputs[0].shape[0] // real[0].shape[0]

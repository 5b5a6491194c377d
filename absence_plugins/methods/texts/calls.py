"""How a model of token ids is called: alone, and with two texts aligned in one length."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from absence_plugins.core.reading import plain_model

HIDDEN = -1e4  # added to the scores of attention: exp(-1e4) is 0 in every type, and its logarithm is exact enough
Masking = Literal["none", "additive", "causal", "square", "weights"]
MASKS = ("attention_mask", "mask")


@dataclass(frozen=True)
class Interface:
    """Which arguments a model takes.

    Attributes:
        ids: the name of the token ids; None: the first positional argument.
        mask, positions, types: names of further arguments; None: it has none.
    """

    ids: str | None
    mask: str | None
    positions: str | None
    types: str | None

    @classmethod
    def of(cls, model: Callable[..., Any]) -> Interface:
        """From the signature of a model's forward."""
        try:
            names = set(inspect.signature(getattr(plain_model(model), "forward", model)).parameters)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            names = set()

        def known(*wanted: str) -> str | None:
            return next((name for name in wanted if name in names), None)

        return cls(known("input_ids"), known(*MASKS), known("position_ids"), known("token_type_ids"))

    def call(self, model: Callable[..., Any], ids: Tensor, **more: Tensor | None) -> Any:
        """Call the model: ids [B, T], and mask, positions, types where they are given and it has them."""
        named: dict[str, Tensor] = {
            getattr(self, what): value for what, value in more.items() if value is not None and getattr(self, what)
        }
        return model(ids, **named) if self.ids is None else model(**{self.ids: ids}, **named)


@dataclass(frozen=True)
class Inputs:
    """One text in the common length [1, L]; ``visible``: 1 where the text has a token, 0 where the other one has."""

    ids: Tensor
    visible: Tensor
    positions: Tensor
    types: Tensor | None = None

    def of(self, call: Call) -> tuple[Any, ...]:
        """As :class:`AlignedModel` takes them."""
        positions = None if call.offset is None else self.positions + call.offset
        return self.ids, None if call.masking == "none" else self.visible, positions, self.types


@dataclass(frozen=True)
class Call:
    """One way of giving an aligned text to a model: how its gaps are hidden, and where positions begin.

    Attributes:
        masking: "additive" and "causal": as what is added to the scores of attention [1, 1, L, L] (causal: later tokens
            are hidden, too); "square": as 1 and 0 [1, L, L] (BERT in transformers 4); "weights": as 1 and 0 [1, L];
            "none": not at all.
        offset: the number of the first position; None: the model counts itself.
    """

    masking: Masking
    offset: int | None


class AlignedModel(nn.Module):
    """A model of ids as one of :class:`Inputs`, of which the hidden tokens are numbers with a gradient."""

    def __init__(self, model: Callable[..., Any], interface: Interface, call: Call) -> None:
        super().__init__()
        self.explained, self.interface, self.call_as = model, interface, call
        self.training = bool(getattr(model, "training", False))

    def forward(self, ids: Tensor, visible: Tensor | None, positions: Tensor | None, types: Tensor | None) -> Any:
        """What the model returns."""
        mask = torch.ones_like(ids) if visible is None else self._mask(visible)
        return self.interface.call(self.explained, ids, mask=mask, positions=positions, types=types)

    def _mask(self, visible: Tensor) -> Tensor:
        if self.call_as.masking == "weights":
            return visible
        length = visible.shape[1]
        if self.call_as.masking == "square":
            return visible[:, None, :].expand(-1, length, -1)
        later = torch.full((length, length), HIDDEN, dtype=visible.dtype, device=visible.device).triu(1)
        hidden = ((visible - 1) * -HIDDEN)[:, None, None, :].expand(-1, 1, length, -1)
        return hidden + later if self.call_as.masking == "causal" else hidden


def list_calls(model: Callable[..., Any], interface: Interface, *, padding: int | None) -> list[Call]:
    """The ways to try, the likeliest first."""
    offsets: list[int | None] = [None]
    if interface.positions:
        own = getattr(getattr(model, "config", None), "pad_token_id", padding)
        behind = _padded_positions(model)
        known = [0 if behind is None else behind + 1, 0, *([own + 1] if isinstance(own, int) else [])]
        offsets = [*dict.fromkeys(known), None]
    if interface.mask is None:
        return [Call("none", offset) for offset in offsets]
    forms: list[Masking] = ["weights"] if interface.ids is None else ["additive", "causal", "square", "weights"]
    return [Call(form, offset) for form in forms for offset in offsets]


def _padded_positions(model: Any) -> int | None:
    """The place of padding in an embedding of positions, behind which they begin (RoBERTa); None: there is none."""
    for name, module in model.named_modules() if isinstance(model, nn.Module) else ():
        if (
            isinstance(module, nn.Embedding)
            and "position" in name.rpartition(".")[2]
            and module.padding_idx is not None
        ):
            return module.padding_idx
    return None


def place_of(model: Any, ids: Tensor) -> tuple[torch.device, torch.dtype]:
    """Device and type of a model's parameters; without any those of ids, and float32."""
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    real = [one for one in parameters if one.is_floating_point()]
    return (real[0].device, real[0].dtype) if real else (ids.device, torch.float32)


def longest_text(model: Any) -> int | None:
    """How many positions a model's configuration names; None where it names none."""
    config = getattr(model, "config", None)
    for name in ("max_position_embeddings", "n_positions"):
        count = config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
        if isinstance(count, int) and count > 0:
            return count
    return None

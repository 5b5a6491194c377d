"""Explanation: what ``explain(...)`` of the Captum and Zennit adapters returns."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from torch import Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """A signed map with its two readings, and the numbers to judge it by. B samples, k references.

    Maps have the host's form: a tensor, or a tuple of one per input (or layer output).

    Attributes:
        attribution: the signed map. R > 0 raises the explained output, R < 0 holds it down.
        presence: magnitude >= 0 of the evidence for what is there.
        absence: magnitude >= 0 of the evidence for what is missing. In the non-target view the content
            of x that holds the non-target down, ``max(-R, 0)``; in the target view the places where the
            references have content and x has none, ``max(R, 0)`` there.
        view: "target" or "nontarget": which output ``attribution`` explains.
        target: class index of every sample [B]; None for neurons.
        nontarget: class index of every sample [B]; None where there is none, or it is the mean of all others.
        output: the explained value u(x) [B].
        reference_output: the explained value of every reference (or of the baseline) u(r) [B, k]; None for
            methods without a baseline.
        per_reference: the signed map against every reference, [B, k, ...]; None without references.
        completeness_error: sum(R) - (u(x) - mean u(r)) [B]; None for methods that promise no completeness.
    """

    attribution: Any
    presence: Any
    absence: Any
    view: Literal["target", "nontarget"]
    target: Tensor | None
    nontarget: Tensor | None
    output: Tensor
    reference_output: Tensor | None
    per_reference: Any
    completeness_error: Tensor | None

    def __repr__(self) -> str:
        lines = [f"Explanation({self.view} view of {len(self.output)} samples"]
        for field in fields(self)[4:]:
            value = getattr(self, field.name)
            if isinstance(value, Tensor) and field.name != "per_reference":
                shown = ", ".join(f"{number:.4g}" for number in value.flatten()[:6].tolist())
                lines.append(f"{field.name}=[{shown}{', ...' if value.numel() > 6 else ''}]")
        return ",\n  ".join(lines) + ")"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and strings, ready for JSON."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    return [_plain(part) for part in value] if isinstance(value, (tuple, list)) else value

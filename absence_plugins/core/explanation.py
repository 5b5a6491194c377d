"""Explanation: what ``explain(...)`` of the Captum and Zennit adapters returns."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from torch import Tensor

from absence_plugins.core.outputs import Output
from absence_plugins.core.wording import Names

SHOWN = 3  # different outputs that a repr names


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
        nontarget: class index of every sample [B] (of a margin, that of the runner-up); None where there is none, or
            it is the mean of all others.
        output: the explained value u(x) [B].
        reference_output: the explained value of every reference (or of the baseline) u(r) [B, k]; None for
            methods without a baseline.
        per_reference: the signed map against every reference, [B, k, ...]; None without references.
        completeness_error: sum(R) - (u(x) - mean u(r)) [B]; None for methods that promise no completeness.
        explained: the explained output itself; :meth:`words` says it, :meth:`legend` what red and blue mean.
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
    explained: Output | None = None

    def words(self, names: Names = None) -> list[str]:
        """What is explained of every sample, with the names of the classes where they are given.

        As "logit 3 (cup), which is not the target 7 (espresso)", "minus the output".
        """
        samples = len(self.output)
        return ["the explained output"] * samples if self.explained is None else self.explained.words(samples, names)

    def title(self, sample: int = 0, names: Names = None) -> str:
        """The title of a figure of one sample's map: as "What holds 'cup' down"; :meth:`words` is exact."""
        if self.explained is None:
            return "What raises the explained output or holds it down"
        return self.explained.heading(sample, names)

    def legend(self, sample: int = 0, names: Names = None) -> tuple[str, str]:
        """What red and blue mean in one sample's map: as ("raises logit 3 (cup)", "holds logit 3 (cup) down")."""
        if self.explained is None:
            return "raises the explained output", "holds the explained output down"
        return self.explained.legend(sample, names)

    def __repr__(self) -> str:
        words = list(dict.fromkeys(self.words()))
        said = "; ".join(words[:SHOWN]) + ("; ..." if len(words) > SHOWN else "")
        lines = [f"Explanation({self.view} view of {len(self.output)} samples", f"explained: {said}"]
        if len(words) == 1:
            lines.append("red {}, blue {}".format(*self.legend()))
        for field in fields(self)[4:]:
            value = getattr(self, field.name)
            if isinstance(value, Tensor) and field.name != "per_reference":
                shown = ", ".join(f"{number:.4g}" for number in value.flatten()[:6].tolist())
                lines.append(f"{field.name}=[{shown}{', ...' if value.numel() > 6 else ''}]")
        return ",\n  ".join(lines) + ")"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and strings, ready for JSON."""
        found = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        return {**found, "explained": self.words()}


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    return [_plain(part) for part in value] if isinstance(value, (tuple, list)) else value

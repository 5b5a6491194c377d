"""Relevance of differences: the result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from absence_plugins.core.kinds import Kind
from absence_plugins.core.results import Result, load_registered
from absence_plugins.core.table import Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = 20  # samples that a table shows


@dataclass(frozen=True)
class Relevance(Result):
    """How the difference u(x) - u(r) is divided among the inputs. **Sign**: positive raises u on x compared with r.

    Negative relevance where x has content is content that suppresses u; relevance where only r has content is what is
    missing in x.

    Attributes:
        attribution: in the structure of x, each shaped like its input ([B, T, E] for indices into an embedding),
            averaged over the references; None for inputs without relevance.
        per_reference: the same with a leading axis of references [R, ...].
        output: u(x), [B].
        reference_output: u(r), [R, B].
        conservation_error: abs(sum of relevance - (u(x) - u(r))) / max(abs(u(x) - u(r)), eps * sum of abs(relevance)),
            [R, B]. Samples that the model mixes, or inputs whose first axis is not the batch: that of the whole batch.
    """

    attribution: Any
    per_reference: Any
    output: Tensor
    reference_output: Tensor
    conservation_error: Tensor
    layers: dict[str, Tensor] = field(repr=False)
    multipliers: Any = field(repr=False)

    @property
    def difference(self) -> Tensor:
        """u(x) - u(r), [R, B]."""
        return self.output - self.reference_output

    def at(self, layer: str) -> Tensor:
        """Relevance of a layer's output (one of ``layers``), averaged over the references.

        m (a(x) - a(r)); sums to u(x) - u(r) where all paths to the output run through the layer.

        Raises:
            KeyError: the layer was not asked for.
        """
        if layer not in self.layers:
            raise KeyError(
                f"relevance at {layer!r} was not asked for; pass layers=[{layer!r}]. There is: {list(self.layers)}"
            )
        return self.layers[layer].mean(0)

    def _heading(self) -> str:
        return "Relevance: u(x) - u(r), divided among the inputs"

    def _grid(self) -> Grid:
        rows = [("sample", "u(x)", "mean u(r)", "references", "conservation error")]
        for sample in range(min(ROWS, len(self.output))):
            worst = float(self.conservation_error[:, sample].max())
            mean = float(self.reference_output[:, sample].mean())
            value, count = float(self.output[sample]), str(len(self.reference_output))
            rows.append((str(sample), f"{value:.4g}", f"{mean:.4g}", count, f"{worst:.1e}"))
        more = (f"and {len(self.output) - ROWS} more samples",) if len(self.output) > ROWS else ()
        return Grid(
            tuple(rows), left=(), foot=(*more, "above 0: raises u on x compared with r; below 0: holds it down")
        )

    def figure(
        self,
        ax: Any = None,
        *,
        sample: int = 0,
        part: int | str = 0,
        image: Tensor | None = None,
        kind: Kind | None = None,
        inputs: Tensor | None = None,
        reference: Tensor | None = None,
    ) -> Figure:
        """One sample's relevance, averaged over the references, in red, white and blue; needs matplotlib.

        ax: axes to draw into; part: of several inputs, which one (a number, or the key of a dictionary); image: the
        input, [C, H, W] or a batch, drawn beside the map; kind: what the entries are, if not pixels, with ``inputs``
        [B, ...] and ``reference`` ([B, ...] or several [k, B, ...]), which the figure shows beside the map.

        Raises:
            ImportError: matplotlib is missing.
            TypeError: ``kind`` without ``inputs``.
            ValueError: no such sample or part, a map that is no vector, image or [C, H, W], inputs of another kind.
        """
        given = {"kind": kind, "inputs": inputs, "reference": reference}
        chosen = {name: value for name, value in given.items() if value is not None}
        if chosen and kind is None:
            raise ValueError(
                f"{' and '.join(chosen)} without kind=; pass a TableKind, TextKind, SignalKind or VolumeKind"
            )
        drawn: Figure = load_registered("relevance.figure")(
            self, ax=ax, sample=sample, part=part, image=image, **chosen
        )
        return drawn

    def to_dict(self) -> dict[str, Any]:
        """The numbers of the result, for JSON."""
        return {
            "output": self.output.tolist(),
            "reference_output": self.reference_output.tolist(),
            "conservation_error": self.conservation_error.tolist(),
            "layers": {name: list(value.shape) for name, value in self.layers.items()},
        }

    def __repr__(self) -> str:
        worst = float(self.conservation_error.max())
        return (
            f"Relevance(u(x)={_short(self.output)}, u(r)={_short(self.reference_output)}, "
            f"{len(self.reference_output)} reference(s), conservation error {worst:.1e})"
        )


def _short(values: Tensor) -> str:
    return (
        "["
        + ", ".join(f"{value:.4g}" for value in values.flatten()[:4].tolist())
        + (", ...]" if values.numel() > 4 else "]")
    )


# Relative to the gross relevance: beyond this a sum is not rounding any more.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
HALF = 5e-2
OUTPUTS = 1e4  # units in the last place of the outputs


def conservation(
    relevances: list[Tensor], u: Tensor, other: Tensor, seed: Tensor, dtype: torch.dtype
) -> tuple[Tensor, bool]:
    """Relative conservation error [B], and whether the sum is right up to the rounding of ``dtype``.

    u, other: the outputs [B, ...] for x and r; seed: the weight of each. Per sample where every input has the samples
    on its first axis; of the whole batch where this does not hold.
    """
    u, other, seed = (value.to(torch.float64) for value in (u, other, seed))
    samples = len(u)
    change, scale = (
        value.reshape(samples, -1).sum(1)
        for value in (seed * (u - other), (seed * torch.maximum(u.abs(), other.abs())).abs())
    )
    if all(entry.dim() > 0 and len(entry) == samples for entry in relevances):
        flat = torch.cat([entry.reshape(samples, -1).to(torch.float64) for entry in relevances], 1)
        error, is_rounding = _compare(flat.sum(1), flat.abs().sum(1), change, scale, dtype)
        if is_rounding:
            return error, True
    flat = torch.cat([entry.flatten().to(torch.float64) for entry in relevances])
    error, is_rounding = _compare(flat.sum(), flat.abs().sum(), change.sum(), scale.sum(), dtype)
    return error.expand(samples), is_rounding


def _compare(total: Tensor, gross: Tensor, change: Tensor, scale: Tensor, dtype: torch.dtype) -> tuple[Tensor, bool]:
    eps = torch.finfo(dtype).eps
    off = (total - change).abs()
    error = off / torch.maximum(change.abs(), eps * gross).clamp(min=torch.finfo(torch.float64).tiny)
    return error, bool((off <= TOLERANCE.get(dtype, HALF) * gross + OUTPUTS * eps * scale).all())

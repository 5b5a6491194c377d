"""Explanation: what ``explain(...)`` of the Captum and Zennit adapters returns."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from absence_plugins.core.kinds import Kind
from absence_plugins.core.outputs import Output
from absence_plugins.core.results import Result, load_registered
from absence_plugins.core.table import Grid
from absence_plugins.core.wording import Names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 3  # different outputs that a repr names
ROWS = 20  # samples that a table shows


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(Result):
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
        kind: what the entries of the inputs are, if not pixels, as the references say it.
        inputs: of a kind, the explained inputs [B, ...].
        references: of a kind, what they are compared with [B, k, ...].
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
    kind: Kind | None = None
    inputs: Tensor | None = None
    references: Tensor | None = None

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
        samples = len(self.output)
        lines = [f"Explanation({self.view} view of {samples} sample{'s' * (samples != 1)}", f"explained: {said}"]
        if len(words) == 1:
            lines.append("red {}, blue {}".format(*self.legend()))
        for field in fields(self)[4:]:
            value = getattr(self, field.name)
            if isinstance(value, Tensor) and field.name not in ("per_reference", "inputs", "references"):
                shown = ", ".join(f"{number:.4g}" for number in value.flatten()[:6].tolist())
                lines.append(f"{field.name}=[{shown}{', ...' if value.numel() > 6 else ''}]")
        return ",\n  ".join(lines) + ")"

    def _heading(self) -> str:
        samples = len(self.output)
        return f"Explanation of {samples} sample{'s' * (samples != 1)}, {VIEWS[self.view]}"

    def _grid(self) -> Grid:
        columns: dict[str, list[str]] = {
            "sample": [str(number) for number in range(len(self.output))],
            "explained": self.words(),
            "u(x)": _numbers(self.output),
        }
        if self.reference_output is not None:
            columns["mean u(r)"] = _numbers(self.reference_output.flatten(1).mean(1))
        sums = _sums(self.attribution, len(self.output))
        if sums is not None:
            columns["sum of the map"] = _numbers(sums)
        if self.completeness_error is not None:
            columns["error"] = _numbers(self.completeness_error)
        shown = tuple(zip(*(column[:ROWS] for column in columns.values()), strict=True))
        legends = {self.legend(sample) for sample in range(min(ROWS, len(self.output)))}
        foot = [f"and {len(self.output) - ROWS} more samples"] if len(self.output) > ROWS else []
        if len(legends) == 1:
            foot.append("red (above 0) {}, blue (below 0) {}".format(*legends.pop()))
        else:
            foot.append("red (above 0) raises what is explained, blue (below 0) holds it down")
        return Grid((tuple(columns), *shown), left=(1,), foot=tuple(foot))

    def figure(
        self, ax: Any = None, *, sample: int = 0, part: int = 0, image: Tensor | None = None, names: Names = None
    ) -> Figure:
        """One sample's signed map in red, white and blue; needs matplotlib.

        Of a kind of data (:attr:`kind`) as it is read: bars with the columns' names, colored tokens, a line over
        colored spans, three slices; with what the references have beside it. Else as an image, or as bars of a vector.

        Args:
            ax: matplotlib's axes to draw the map into; None: a new figure.
            sample: which sample.
            part: of several inputs (or layer outputs), which one.
            image: the input, [C, H, W] or a batch; drawn beside the map and in outline over it.
            names: of the classes, for title and color bar.

        The sign: red raises the explained output, blue holds it down.

        Raises:
            ImportError: matplotlib is missing.
            ValueError: no such sample or part, a map that is no vector, image or [C, H, W].
        """
        drawn: Figure = load_registered("explanation.figure")(
            self, ax=ax, sample=sample, part=part, image=image, names=names
        )
        return drawn

    def save(self, folder: Path | str, *, image: Tensor | None = None, names: Names = None) -> Path:
        """Write tensors (``explanation.safetensors``), words (``explanation.json``) and figures; returns the folder.

        Args:
            folder: made where it is missing; an explanation that was saved there is overwritten.
            image: the inputs, for the figures.
            names: of the classes, for the figures.

        Figures are ``sample-0.png``, ... of the first 20 samples, where matplotlib is installed and the map can be
        drawn. :meth:`load` reads the rest.

        Raises:
            ValueError: the folder is an existing file.
        """
        written: Path = load_registered("explanation.save")(self, folder, image=image, names=names)
        return written

    @classmethod
    def load(cls, folder: Path | str) -> Explanation:
        """Read what :meth:`save` wrote; :meth:`words` and :meth:`legend` say the same, with names of classes, too.

        Raises:
            ValueError: there is none, or a damaged one.
        """
        found: Explanation = load_registered("explanation.load")(folder)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and strings, ready for JSON."""
        found = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        return {**found, "explained": self.words(), "kind": None if self.kind is None else self.kind.to_dict()}


VIEWS = {"target": "target view", "nontarget": "non-target view"}


def _numbers(values: Tensor) -> list[str]:
    return [f"{number:.4g}" for number in values.tolist()]


def _sums(maps: Any, samples: int) -> Tensor | None:
    """The sum of every sample's map [B]; None where the maps' first axis does not count the samples."""
    parts = list(maps) if isinstance(maps, (tuple, list)) else [maps]
    if not all(isinstance(part, Tensor) and part.dim() and len(part) == samples for part in parts):
        return None
    total: Tensor = sum(part.reshape(samples, -1).double().sum(1) for part in parts)
    return total


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    return [_plain(part) for part in value] if isinstance(value, (tuple, list)) else value

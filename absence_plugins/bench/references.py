"""``absence-plugins bench references``: which references give the truest absence evidence on photographs.

Two claims are checked on the network, window by window. *Missing*: the target against real photographs, copied in where
the map's absence part is strongest; the output must fall. *Suppressing*: the target against the photograph itself with
its content taken out, which takes the place of the windows that hold the output down most; the output must rise.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from absence_plugins.bench.pages import replaced, require_marks
from absence_plugins.bench.reference_subject import Subject, load_subject
from absence_plugins.bench.result import surroundings
from absence_plugins.bench.run import Run
from absence_plugins.bench.sources import fingerprint_sources
from absence_plugins.bench.surroundings import describe_environment, steady
from absence_plugins.core.files import write_json, write_whole
from absence_plugins.core.maps import absence_part
from absence_plugins.core.ownership import own_folder
from absence_plugins.core.table import align
from absence_plugins.methods.checkpoint import read_record, write_record
from absence_plugins.methods.faithfulness import absence_scores
from absence_plugins.methods.faithfulness.cells import Cells
from absence_plugins.methods.identity import digest_of, identify_model
from absence_plugins.relevance import relevance

KINDS = {
    "missing": ("random", "pixels", "features", "features, euclidean"),
    "suppressing": ("black", "grey", "blurred", "inpainted"),
}
RULES = ("lower_gamma", "epsilon")
STRONGEST = 3  # windows that a map names
STEPS, DRAWS = 8, 2
MARK = "bench references"
HEAD = ("claim", "references", "score lower_gamma", "score epsilon", "placebo", "3 strongest windows", "claimed way")
LEGEND = (
    "score: 1 as good as the best order of windows found, 0 as good as random, in brackets the 95 % interval over "
    "the photographs; placebo: the lower_gamma map of another photograph; strongest windows: their mean effect, each changed "
    "alone, above that of all windows, in standard deviations of all windows (lower_gamma; standard error over the "
    "photographs); claimed way: share of them that move the output as the map says."
)


@dataclass(frozen=True)
class ReferenceScore:
    """What one kind of references is worth, over all photographs.

    Attributes:
        claim: "missing" or "suppressing".
        kind: of the references.
        score, low, high: of ``absence_scores``, Gamma in the lowest fifth, with its interval; None: not measured.
        epsilon: the score of Epsilon's map.
        placebo: the score of another photograph's map.
        above: how far the effect of the strongest windows is above that of all, in standard deviations.
        error: standard error of ``above`` over the photographs.
        claimed: the share of the strongest windows that move the output the claimed way.
        photographs: how many count.
    """

    claim: str
    kind: str
    score: float | None
    low: float | None
    high: float | None
    epsilon: float | None
    placebo: float | None
    above: float
    error: float
    claimed: float
    photographs: int

    @property
    def is_above_chance(self) -> bool:
        """Whether the strongest windows are above all windows by two standard errors."""
        return self.above > 2 * self.error

    def row(self) -> tuple[str, ...]:
        """The cells of the table."""
        return (
            self.claim,
            self.kind,
            "-" if self.score is None else f"{self.score:+.2f} [{self.low:+.2f}, {self.high:+.2f}]",
            *("-" if value is None else f"{value:+.2f}" for value in (self.epsilon, self.placebo)),
            f"{self.above:+.2f} ± {self.error:.2f}",
            f"{self.claimed:.0%}",
        )


@dataclass(frozen=True, repr=False)
class ReferencesResult:
    """All kinds, and where they were measured."""

    scores: tuple[ReferenceScore, ...]
    environment: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Nothing is judged."""
        return True

    def best(self, claim: str) -> ReferenceScore:
        """The kind whose strongest windows stand out most."""
        return max((one for one in self.scores if one.claim == claim), key=lambda one: one.above)

    def table(self) -> str:
        """A line per kind, what the columns mean, and where it was measured."""
        rows = align([HEAD, *(one.row() for one in self.scores)])
        return "\n".join([*rows, "", LEGEND, "", *surroundings(self.environment)])

    def markdown(self) -> str:
        """The table for a page."""
        lines = [HEAD, ("---",) * len(HEAD), *(one.row() for one in self.scores)]
        return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", LEGEND])

    def __repr__(self) -> str:
        return f"ReferencesResult of {len(self.scores)} kinds\n{self.table()}"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        return {"scores": [asdict(one) for one in self.scores], "environment": dict(self.environment)}


def run_references_bench(
    *,
    rounds: int = 5,
    quick: bool = False,
    device: str = "auto",
    progress: bool = True,
    out: Path | None = None,
    into: Sequence[Path] = (),
    kinds: Sequence[str] | None = None,
) -> ReferencesResult:
    """Measure every kind of references on a trained EfficientNet-Lite0 and nine photographs of scikit-image.

    The pool of real references are six crops of each of the other photographs, without those that the network gives the
    photograph's own class. About 36,000 forwards: a quarter of an hour on one free core.

    Args:
        rounds: not used: nothing is timed.
        quick: a small network that sees colors, and noise: shows that the bench works.
        device: checked only; measured on the CPU.
        progress: show progress bars on stderr.
        out: folder for references.json and references.md. Every finished kind is kept in it, and not done again.
        into: Markdown files in which what stands between ``<!-- bench references: begin -->`` and
            ``<!-- bench references: end -->`` is replaced by the table.
        kinds: some of them; None: all.

    Raises:
        ValueError: a file without the markers, an ``out`` that is a file, an unknown kind.
        ImportError: the extra ``photos`` is missing.
    """
    run = Run.start(rounds, quick, device, progress)
    require_marks(into, [MARK])
    wanted = [(claim, kind) for claim, every in KINDS.items() for kind in every if kinds is None or kind in kinds]
    if not wanted:
        raise ValueError(f"kinds={kinds!r} are not known; there are: {', '.join(sum(KINDS.values(), ()))}")
    with own_folder(out):
        subject = load_subject(quick=quick)
        with steady():
            scores = tuple(_kept(subject, claim, kind, out, progress) for claim, kind in wanted)
        result = ReferencesResult(scores, describe_environment("torch", run))
        if out is not None:
            write_json(out / "references.json", result.to_dict())
            write_whole(out / "references.md", result.markdown() + "\n")
    for path in into:
        write_whole(path, replaced(path.read_text(encoding="utf-8"), MARK, result.markdown))
    return result


def _kept(subject: Subject, claim: str, kind: str, out: Path | None, progress: bool) -> ReferenceScore:
    """One kind's score: as kept in the folder, or measured and kept."""
    if out is None:
        return measure_kind(subject, claim, kind, progress=progress)
    model = identify_model(subject.model, subject.images[:1]).settings
    data = digest_of(subject.images, subject.crops, subject.empty)
    work = [subject.name, claim, kind, STEPS, DRAWS, STRONGEST, model["model"], model["structure"], data]
    key = json.dumps([*work, fingerprint_sources()])
    mark, path = hashlib.sha256(key.encode()).hexdigest(), out / f"references-{claim}-{kind.split()[-1]}.json"
    if (known := read_record(path, mark)) is not None:
        return ReferenceScore(**{field.name: known[field.name] for field in fields(ReferenceScore)})
    found = measure_kind(subject, claim, kind, progress=progress)
    write_record(path, mark, asdict(found))
    return found


def measure_kind(subject: Subject, claim: str, kind: str, *, progress: bool = False) -> ReferenceScore:
    """The scores of one kind of references over all photographs."""
    references = torch.cat([subject.reference(row, kind) for row in range(len(subject.images))])
    maps = [_maps(subject, references, rule) for rule in RULES]
    is_missing = claim == "missing"
    found = absence_scores(
        subject.model,
        subject.images,
        subject.targets,
        maps[0],
        standard=maps[1],
        view="reference" if is_missing else "nontarget",
        reference=references if is_missing else None,
        empty=subject.empty if is_missing else references,
        cell=subject.cell,
        steps=STEPS,
        draws=DRAWS,
        progress=progress,
    )
    windows = _strongest_windows(subject, claim, kind, references, maps[0])
    return replace(
        windows,
        score=found.score,
        low=found.interval[0],
        high=found.interval[1],
        epsilon=found.standard_score,
        placebo=found.placebo_score,
    )


def measure_windows(subject: Subject, claim: str, kind: str) -> ReferenceScore:
    """The strongest windows alone, without the costly ``absence_scores``: about 50 forwards a photograph."""
    references = torch.cat([subject.reference(row, kind) for row in range(len(subject.images))])
    return _strongest_windows(subject, claim, kind, references, _maps(subject, references, RULES[0]))


def _maps(subject: Subject, references: Tensor, rule: str) -> Tensor:
    """The target's relevance against each photograph's reference."""
    found = [
        relevance(subject.model, x[None], r[None], int(target), rule=rule).attribution
        for x, r, target in zip(subject.images, references, subject.targets, strict=True)
    ]
    return torch.cat(found)


def _strongest_windows(subject: Subject, claim: str, kind: str, references: Tensor, maps: Tensor) -> ReferenceScore:
    """Of every photograph whose map names windows: how far their effects stand out, and the share that go as
    claimed.
    """
    is_missing = claim == "missing"
    cells, sign = Cells.of(subject.images, subject.cell), -1 if is_missing else 1
    above, claimed = [], []
    for x, r, signed, target in zip(subject.images, references, maps, subject.targets, strict=True):
        allowed = absence_part(x, r, subject.empty) if is_missing else x != r
        allowed = allowed.any(0, keepdim=True)
        windows = cells.pixels(torch.eye(cells.count, dtype=torch.bool)) & allowed
        named = -sign * cells.total((signed * allowed)[None])[0]
        with torch.no_grad():
            many = torch.cat([torch.where(part, r, x) for part in torch.split(windows, 16)])
            outputs = torch.cat(
                [subject.model(part)[:, target] for part in torch.split(torch.cat([x[None], many]), 16)]
            )
        usable = windows.flatten(1).any(1)
        effects = sign * (outputs[1:] - outputs[0]).double()
        order = named.masked_fill(~usable, -torch.inf).topk(min(STRONGEST, int(usable.sum()))).indices
        order = order[named[order] > 0]
        if len(order) and int(usable.sum()) > STRONGEST and float(effects[usable].std()) > 0:
            above.append((effects[order].mean() - effects[usable].mean()) / effects[usable].std())
            claimed.append((effects[order] > 0).double().mean())
    found = torch.stack(above) if above else torch.full((1,), math.nan)
    error = float(found.std() / len(found) ** 0.5)
    share = float(torch.stack(claimed).mean()) if claimed else math.nan
    return ReferenceScore(claim, kind, None, None, None, None, None, float(found.mean()), error, share, len(above))

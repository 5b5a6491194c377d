"""``absence-plugins bench kinds``: are absences found in tables, texts, signals, volumes and segmentations?

Networks of each kind, whose encoded absence is known by construction, are asked in the shapes of their users: which
column, token, sample, voxel or pixel do inputs lack, and what holds the unit down in inputs that have it?
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from absence_plugins.bench.kind_methods import JUDGED, METHODS
from absence_plugins.bench.kind_questions import KindQuestion
from absence_plugins.bench.pages import replaced, require_marks
from absence_plugins.bench.result import surroundings
from absence_plugins.bench.run import Run
from absence_plugins.bench.surroundings import describe_environment, steady
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.files import write_json, write_whole
from absence_plugins.core.ownership import own_folder
from absence_plugins.core.randomness import seeded
from absence_plugins.core.table import align
from absence_plugins.data.planted import NATURAL
from absence_plugins.methods.faithfulness.claims import area
from absence_plugins.methods.faithfulness.result import View
from absence_plugins.methods.faithfulness.table import number

MARK = "bench kinds"
SEEDS, SAMPLES, REFERENCES, STEPS = (0, 1), 12, 2, 16
LIMIT = 0.99
WORDS = {
    "column_missing": ("table", "column"),
    "negation_missing": ("text", "token"),
    "signal_missing": ("signal", "sample"),
    "volume_missing": ("volume", "voxel"),
    "segmentation_missing": ("segmentation", "pixel"),
}
TITLES: dict[View, str] = {"reference": "What is missing?", "nontarget": "What holds the unit down?"}
LEGEND = (
    "Each cell: right thing / right sign / faithful. Right thing: share of the samples whose strongest evidence (the "
    "strongest column, token, sample, voxel or pixel) lies in the key. Right sign: share whose map, summed over the "
    "key, has the right sign. Faithful: 1 where changing things in the map's order moves the unit as the best order "
    'found, 0 as the best order that never saw the network; "?" where such an order is the best one, so that nothing '
    "can be said. "
    '"-": the method has no answer (Zennit has no rule for attention).'
)


@dataclass(frozen=True)
class KindScore:
    """One method on one problem in one view, all training seeds pooled.

    Attributes:
        problem, view, method: which.
        right: share of the samples whose strongest evidence lies in the key; None: no answer.
        sign: share whose map has the right sign there.
        faithful: of the map's order, above the best order that never saw the network; None: no score.
        samples: answers that count (in the reference view one per reference).
        control: the best order that never saw the network.
    """

    problem: str
    view: View
    method: str
    right: float | None
    sign: float | None
    faithful: float | None
    samples: int
    control: str

    def text(self) -> str:
        """As ".98/1.0/.75"; "-" without an answer."""
        if self.right is None:
            return "-"
        return "/".join(number(value) for value in (self.right, self.sign, self.faithful))


@dataclass(frozen=True, repr=False)
class KindsResult:
    """All scores, and where they were measured.

    Attributes:
        scores: by view, method and problem.
        settings: seeds, samples, references, steps.
        environment: versions.
        judged: whether the verdict counts.
    """

    scores: tuple[KindScore, ...]
    settings: dict[str, Any]
    environment: dict[str, Any]
    judged: bool

    @property
    def failing(self) -> list[str]:
        """Where ours does not find what is missing, with the right sign, in 99 % of the samples."""
        return [
            f"{one.method} on {one.problem}: {one.text()}"
            for one in self.scores
            if one.view == "reference" and one.method in JUDGED and one.right is not None
            and min(one.right, one.sign or 0) < LIMIT
        ]  # fmt: skip

    @property
    def ok(self) -> bool:
        """Whether ours finds what is missing in every kind of data."""
        return not self.judged or not self.failing

    def _rows(self, view: View) -> list[tuple[str, ...]]:
        own = [one for one in self.scores if one.view == view]
        problems = list(dict.fromkeys(one.problem for one in own))
        texts = {(one.method, one.problem): one.text() for one in own}
        head = ("", *(f"{kind} ({thing})" for kind, thing in (WORDS[problem] for problem in problems)))
        methods = list(dict.fromkeys(one.method for one in own))
        return [head, *((METHODS[method][1], *(texts[method, problem] for problem in problems)) for method in methods)]

    def table(self) -> str:
        """A block per view, a line per method, and the verdict."""
        lines: list[str] = []
        for view in dict.fromkeys(one.view for one in self.scores):
            lines += [TITLES[view], *align(self._rows(view)), ""]
        verdict = "Every kind: what is missing is found, with the right sign, in 99 % of the samples by ours"
        if self.failing:
            verdict = "\n".join(["Not found in 99 % of the samples:", *(f"    {line}" for line in self.failing)])
        return "\n".join([*lines, LEGEND, "", verdict, "", *surroundings(self.environment)])

    def markdown(self) -> str:
        """Both tables for a page."""
        blocks = []
        for view in dict.fromkeys(one.view for one in self.scores):
            head, *rows = self._rows(view)
            lines = [head, ("---", *(["---:"] * (len(head) - 1))), *rows]
            blocks.append("\n".join([f"**{TITLES[view]}**", "", *(f"| {' | '.join(line)} |" for line in lines)]))
        return "\n\n".join([*blocks, LEGEND])

    def __repr__(self) -> str:
        return f"KindsResult of {len(self.scores)} scores\n{self.table()}"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        return {
            "scores": [asdict(one) for one in self.scores],
            "settings": dict(self.settings),
            "environment": dict(self.environment),
            "ok": self.ok,
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> KindsResult:
        """The way back from :meth:`to_dict`; not judged again."""
        return cls(tuple(KindScore(**one) for one in plain["scores"]), plain["settings"], plain["environment"], False)


def run_kinds_bench(
    *,
    rounds: int = 5,
    quick: bool = False,
    device: str = "auto",
    progress: bool = True,
    out: Path | None = None,
    into: Sequence[Path] = (),
    measured: Path | None = None,
) -> KindsResult:
    """Score Captum's and Zennit's methods, as one calls them and changed, and relevance on every kind of data.

    Args:
        rounds: not used: nothing is timed.
        quick: tables and texts alone, few samples, nothing judged: shows that the bench works.
        device: checked only: the networks are small and stay on the CPU.
        progress: show a progress bar on stderr.
        out: folder for kinds.json and kinds.md.
        into: Markdown files in which what stands between ``<!-- bench kinds: begin -->`` and ``<!-- bench kinds: end
            -->`` is replaced by the tables.
        measured: kinds.json of an earlier run, whose tables are written; nothing is measured.

    Raises:
        ValueError: a file without the markers, an ``out`` that is a file, a ``measured`` that is no kinds.json.
        ImportError: Captum or Zennit is missing.
    """
    run = Run.start(rounds, quick, device, progress)
    require_marks(into, [MARK])
    with own_folder(out):
        result = _measure_all(run) if measured is None else read_result(measured)
        if out is not None:
            write_json(out / "kinds.json", result.to_dict())
            write_whole(out / "kinds.md", result.markdown() + "\n")
    for path in into:
        write_whole(path, replaced(path.read_text(encoding="utf-8"), MARK, result.markdown))
    return result


def read_result(path: Path) -> KindsResult:
    """What an earlier run wrote to kinds.json. Raises ValueError for a file that is none."""
    try:
        return KindsResult.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no kinds.json of bench kinds ({error}); pass one that --out wrote") from error


def _measure_all(run: Run) -> KindsResult:
    from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

    names = list(NATURAL)[:2] if run.quick else list(NATURAL)
    settings: dict[str, Any] = {"seeds": SEEDS, "samples": SAMPLES, "references": REFERENCES, "steps": STEPS}
    if run.quick:
        settings = {"seeds": (0,), "samples": 3, "references": 1, "steps": 4}
    work = [(name, view) for view in reversed(get_args(View)) for name in names]
    scores: list[KindScore] = []
    with steady(), tqdm(work, desc="bench kinds", disable=not run.progress) as bar:
        for name, view in bar:
            bar.set_postfix_str(name)
            scores += measure_problem(name, view, settings)
    order = list(METHODS)
    scores.sort(key=lambda one: (one.view == "nontarget", order.index(one.method)))
    environment = describe_environment("zennit", run)
    return KindsResult(tuple(scores), {**settings, "seeds": list(settings["seeds"])}, environment, not run.quick)


def measure_problem(
    name: str, view: View, settings: dict[str, Any], methods: Sequence[str] = tuple(METHODS)
) -> list[KindScore]:
    """The scores of some methods on one problem."""
    shape = {"samples": settings["samples"], "k": settings["references"], "steps": settings["steps"]}
    questions = [KindQuestion.of(name, view, seed=seed, **shape) for seed in settings["seeds"]]
    answers: dict[str, list[Tensor]] = {}
    for method in methods:
        found = [_ask(question, method) for question in questions]
        if all(one is not None for one in found):
            answers[method] = [one for one in found if one is not None]
    gains = {
        method: torch.cat([question.measure_gains(one) for question, one in zip(questions, own, strict=True)])
        for method, own in answers.items()
    }
    controls = {key: torch.cat([q.controls[key] for q in questions]) for key in questions[0].controls}
    measured = torch.cat([area(question.curves.measured) for question in questions])
    # the best order of a row is common to all methods
    best = float(torch.stack([measured, *controls.values(), *gains.values()]).amax(0).sum())
    control = max(controls, key=lambda key: float(controls[key].sum()))
    random, chance = float(controls["random"].sum()), float(controls[control].sum())
    scores = []
    for method in methods:
        if method not in answers:
            scores.append(KindScore(name, view, method, None, None, None, 0, control))
            continue
        located = [question.locate(one) for question, one in zip(questions, answers[method], strict=True)]
        right, sign = (torch.cat(part).double() for part in zip(*located, strict=True))
        own = float(gains[method].sum())
        room = best - (chance if own > chance else random)
        faithful = (own - chance) / room if best - chance > 1e-6 * abs(best) else None
        scores.append(
            KindScore(name, view, method, float(right.mean()), float(sign.mean()), faithful, len(right), control)
        )
    return scores


def _ask(question: KindQuestion, method: str) -> Tensor | None:
    with seeded(0), warnings.catch_warnings():
        warnings.simplefilter("ignore", AbsenceWarning)
        return METHODS[method][0](question)

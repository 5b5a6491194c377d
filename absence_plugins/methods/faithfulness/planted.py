"""Which method finds absences, and which cannot? Every method on networks whose encoded absence is known."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from textwrap import shorten
from typing import Any, get_args

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.checks import check_choice, check_integers
from absence_plugins.core.hooks import evaluating, quiet_forward, unchanged
from absence_plugins.core.randomness import seeded
from absence_plugins.core.turns import working_on
from absence_plugins.data.planted import PROBLEMS
from absence_plugins.methods.faithfulness.cells import Cells
from absence_plugins.methods.faithfulness.claims import Claim, deletion, insertion
from absence_plugins.methods.faithfulness.curves import Curves
from absence_plugins.methods.faithfulness.explained import resolved, unit_value
from absence_plugins.methods.faithfulness.located import Located
from absence_plugins.methods.faithfulness.questions import Method, Question
from absence_plugins.methods.faithfulness.result import AbsenceScores, View
from absence_plugins.methods.faithfulness.summary import summarize
from absence_plugins.methods.faithfulness.table import PlantedScore, PlantedTable

BATCH_SIZE = 512


def planted_benchmark(
    methods: Mapping[str, Method],
    problems: Iterable[str] | Mapping[str, Any] | None = None,
    seeds: Iterable[int] = (0,),
    *,
    views: Iterable[View] = ("nontarget", "reference"),
    samples: int = 12,
    references: int = 2,
    steps: int = 16,
    draws: int = 4,
    progress: bool = True,
) -> PlantedTable:
    """Ask every method about every planted absence, and score the answers against the truth and on the network.

    Non-target view: images with the key; what holds down the unit that encodes its absence? Evidence is max(-R, 0).
    Reference view: images without the key; what do they lack? Evidence is max(R, 0) where the nearest references with
    the key have content and the image has none. Scored are the share of the evidence within two pixels of the key, the
    right sign (R summed over that region), the pointing game, and the faithfulness score of :func:`absence_scores`, for
    which the best order of a problem is common to all methods.

    Source: this package (docs/faithfulness); pointing game: Zhang et al., IJCV 2018.

    Args:
        methods: name -> callable from a :class:`Question` to the signed map of its unit [N, C or 1, H, W] (in the
            reference view also per reference, [N, k, C or 1, H, W]), or None where it has no answer in that view. The
            sign: R > 0 raises the unit. One that raises is listed with the reason and has no scores.
        problems: names in ``absence_plugins.data.planted.PROBLEMS``, or name -> function of a seed that returns a
            ``Planted``; None: all.
        seeds: training seeds, pooled.
        views: which of the two.
        samples: images per problem, seed and view.
        references: per image.
        steps: points of the curves of the faithfulness score.
        draws: its random orders.
        progress: show a progress bar on stderr.

    Random methods are seeded; the global random states, and the networks, are as before.

    Raises:
        ValueError: no methods, an unknown problem or view, fewer than one sample, a map of another shape than asked
            for.

    Example (input x gradient of the unit itself, on the first problem):
        >>> def input_x_gradient(question):
        ...     x = question.x.clone().requires_grad_()
        ...     return x * torch.autograd.grad(question.model(x)[:, question.unit].sum(), x)[0]
        >>> table = planted_benchmark(
        ...     {"InputXGradient": input_x_gradient}, ["shape_missing"], views=["nontarget"], samples=4, steps=4, progress=False
        ... )
        >>> table.of("InputXGradient", "shape_missing", "nontarget").samples
        4
    """
    makers = _makers(problems)
    chosen: tuple[View, ...] = (views,) if isinstance(views, str) else tuple(views)  # type: ignore[assignment]
    trained = tuple(seeds)
    _check(methods, chosen, trained, {"samples": samples, "references": references, "steps": steps, "draws": draws})
    scores: list[PlantedScore] = []
    total = len(makers) * len(chosen) * len(trained) * (len(methods) + 1)
    with tqdm(total=total, desc="planted benchmark", disable=not progress) as bar:
        for name, make in makers.items():
            planted = [make(seed) for seed in trained]
            for view in chosen:
                found = [_Asked(Question.of(one, view, samples, references), steps, draws) for one in planted]
                for asked in found:
                    for method, call in methods.items():
                        bar.set_postfix_str(f"{name} {method}")
                        asked.ask(method, call)
                        bar.update()
                    bar.set_postfix_str(f"{name} best order")
                    asked.find_best()
                    bar.update()
                scores += [_pool(name, method, view, found) for method in methods]
    return PlantedTable(
        tuple(scores),
        {"seeds": list(trained), "samples": samples, "references": references, "steps": steps, "draws": draws},
    )


class _Asked:
    """One question, and what the methods answered."""

    def __init__(self, question: Question, steps: int, draws: int) -> None:
        self.question = question
        value = unit_value(question.model, resolved(question.unit, len(question.x)), question.x)
        cells = Cells.of(question.x, 1)
        empty = question.references.empty[0].to(question.x)
        self.claim: Claim = (
            deletion(question.x, empty, cells, value, BATCH_SIZE)
            if question.view == "nontarget"
            else insertion(question.x, question.drawn, empty, cells, value, BATCH_SIZE)
        )
        with evaluating(question.model), quiet_forward([question.x]):
            self.curves = Curves(self.claim, steps, draws, 0)
        self.located: dict[str, Located] = {}
        self.found: dict[str, Tensor] = {}
        self.notes: dict[str, str] = {}
        self.best = self.curves.random

    def ask(self, name: str, method: Method) -> None:
        """Keep where the evidence lies and its curve, or why there is none."""
        model = self.question.model
        try:
            with _keeping_state(model), seeded(0), unchanged(model), warnings.catch_warnings():
                warnings.simplefilter("ignore", AbsenceWarning)
                answer = method(self.question.copied())
            signed = None if answer is None else self.question.shaped(answer)
        except Exception as error:  # one method's failure is a finding about it, not the end of the benchmark
            self.notes[name] = shorten(f"{type(error).__name__}: {error}", 160, placeholder=" ...")
            return
        if signed is None:
            self.notes[name] = "has no answer in this view"
            return
        self.located[name] = self.question.locate(signed)
        with evaluating(model), quiet_forward([self.question.x]):
            self.found[name] = self.curves.of_map(self.claim.scores(signed, name))

    def find_best(self) -> None:
        """The best order of all."""
        with evaluating(self.question.model), quiet_forward([self.question.x]):
            self.best = self.curves.best(list(self.found.values()))

    def scores(self, name: str) -> AbsenceScores:
        """Of one method on this problem and training seed."""
        return summarize(self.question.view, self.curves, {"map": self.found[name]}, {"map": self.best})


def _pool(problem: str, method: str, view: View, found: list[_Asked]) -> PlantedScore:
    """One score of all training seeds."""
    exact = all(one.question.planted.is_exact for one in found)
    notes = [one.notes[method] for one in found if method in one.notes]
    if notes:
        return PlantedScore(problem, method, view, None, None, None, None, 0, exact, notes[0])
    share, is_right, hit = (
        float(torch.cat([getattr(one.located[method], field) for one in found]).double().mean())
        for field in ("share", "is_right", "hit")
    )
    each = [one.scores(method) for one in found]
    above = sum(float((one.areas["map"] - one.areas["random"]).sum()) for one in each)
    room = sum(float((one.areas["best"] - one.areas["random"]).sum()) for one in each)
    faithful = None if any(math.isnan(one.score) for one in each) else above / room
    return PlantedScore(
        problem, method, view, share, is_right, hit, faithful, sum(one.samples for one in each), exact, ""
    )


def _makers(problems: Any) -> dict[str, Any]:
    if problems is None:
        return dict(PROBLEMS)
    if isinstance(problems, Mapping) and problems:
        return dict(problems)
    names = [problems] if isinstance(problems, str) else list(problems)
    unknown = [name for name in names if name not in PROBLEMS]
    if unknown or not names:
        raise ValueError(f"problems={unknown or names} are not known; there are: {', '.join(PROBLEMS)}")
    return {name: PROBLEMS[name] for name in names}


def _check(methods: Any, views: tuple[Any, ...], seeds: tuple[Any, ...], counts: dict[str, Any]) -> None:
    if not methods:
        raise ValueError("methods is empty; pass name -> callable from a Question to a signed map")
    for view in views:
        check_choice("view", view, get_args(View))
    if not views or not seeds:
        raise ValueError("views and seeds need at least one entry each")
    check_integers(**counts)


@contextmanager
def _keeping_state(model: nn.Module) -> Iterator[None]:
    """The network is shared: a method in training mode would move its statistics."""
    with working_on(model):
        state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        try:
            yield
        finally:
            model.load_state_dict(state)

"""Which method finds absences, and which cannot? Every method on networks whose encoded absence is known."""

from __future__ import annotations

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
from absence_plugins.methods.faithfulness.claims import Claim, area, deletion, insertion
from absence_plugins.methods.faithfulness.controls import score_controls
from absence_plugins.methods.faithfulness.curves import Curves
from absence_plugins.methods.faithfulness.explained import resolved, unit_value
from absence_plugins.methods.faithfulness.pooling import IMAGES, pool_answers
from absence_plugins.methods.faithfulness.questions import Method, Question
from absence_plugins.methods.faithfulness.result import View
from absence_plugins.methods.faithfulness.table import NO_ANSWER, PlantedScore, PlantedTable

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
    known: dict[str, Any] | None = None,
    progress: bool = True,
) -> PlantedTable:
    """Ask every method about every planted absence, and score the answers against the truth and on the network.

    Non-target view: images with the key; what holds down the unit that encodes its absence? Evidence is max(-R, 0).
    Reference view: images without the key; what do they lack? Evidence is max(R, 0) where the nearest references with
    the key have content and the image has none. Scored are the share of the evidence within two pixels of the key, the
    pointing game, the right sign (half for the key, half for content that measurably moves the unit the other way: a
    map of one sign reaches .5), and the faithfulness score of :func:`absence_scores` above the best order that never
    saw the network (``controls``): 0 is what the images alone earn. The best order of a problem is common to all
    methods.

    Source: this package (docs/faithfulness); pointing game: Zhang et al., IJCV 2018.

    Args:
        methods: name -> callable from a :class:`Question` to the signed map of its unit [N, C or 1, H, W] (in the
            reference view also per reference, [N, k, C or 1, H, W]; [N, H, W] is read as [N, 1, H, W]), or None where
            it has no answer in that view ("-"). The sign: R > 0 raises the unit. One that raises, or answers with
            another shape, NaN or infinite values, is listed with the reason, has no scores, and is marked "x"; the
            others go on.
        problems: names in ``absence_plugins.data.planted.PROBLEMS``, or name -> function of a seed that returns a
            ``Planted``; None: all.
        seeds: training seeds, pooled.
        views: which of the two.
        samples: images per problem, seed and view.
        references: per image.
        steps: points of the curves of the faithfulness score.
        draws: its random orders.
        known: answers of an earlier run with the same settings: what stands in it is not asked again, what is new is
            put in. Plain dictionaries, lists and numbers, ready for JSON.
        progress: show a progress bar on stderr.

    Random methods are seeded; the global random states, and the networks, are as before.

    Raises:
        ValueError: no methods, an unknown problem or view, fewer than one sample.

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
    answers = {} if known is None else known
    scores: list[PlantedScore] = []
    total = len(makers) * len(chosen) * len(trained) * len(methods)
    with tqdm(total=total, desc="planted benchmark", disable=not progress) as bar:
        for name, make in makers.items():
            for view in chosen:
                found = []
                for seed in trained:
                    own = answers.setdefault(f"{name}, {view}, seed {seed}", {})
                    missing = {method: call for method, call in methods.items() if method not in own}
                    if missing or IMAGES not in own:
                        question = Question.of(make(seed), view, samples, references)
                        asked = _Asked(question, steps, draws)
                        own.setdefault(IMAGES, asked.describe_images())
                        for method, call in missing.items():
                            bar.set_postfix_str(f"{name} {method}")
                            own[method] = asked.ask(method, call)
                            bar.update()
                    bar.update(len(methods) - len(missing))
                    found.append(own)
                scores += [pool_answers(name, method, view, found) for method in methods]
    return PlantedTable(
        tuple(scores),
        {"seeds": list(trained), "samples": samples, "references": references, "steps": steps, "draws": draws},
    )


class _Asked:
    """One question, ready to be put to methods."""

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
            self.controls = {name: self.curves.of_map(scores) for name, scores in score_controls(self.claim).items()}

    def describe_images(self) -> dict[str, Any]:
        """What is the same for all methods: mean gains of every row [rows] along the orders that need none."""
        curves = {"random": self.curves.random, "measured": self.curves.measured, **self.controls}
        return {
            "is_exact": self.question.planted.is_exact,
            "samples": self.claim.samples.tolist(),
            "changeable": self.curves.universe.any(1).tolist(),
            "largest": float(self.claim.start.abs().max()),
            "areas": {name: area(curve).tolist() for name, curve in curves.items()},
        }

    def ask(self, name: str, method: Method) -> dict[str, Any]:
        """Where the evidence lies, its signs and the mean gain of its order, or a note why there is none."""
        model = self.question.model
        try:
            with _keeping_state(model), seeded(0), unchanged(model), warnings.catch_warnings():
                warnings.simplefilter("ignore", AbsenceWarning)
                answer = method(self.question.copied())
            signed = None if answer is None else self.question.shaped(answer)
        except Exception as error:  # one method's failure is a finding about it, not the end of the benchmark
            return {"note": shorten(f"{type(error).__name__}: {error}", 160, placeholder=" ...")}
        if signed is None:
            return {"note": NO_ANSWER}
        located = self.question.locate(signed)
        with evaluating(model), quiet_forward([self.question.x]):
            scores = self.claim.scores(signed, name)
            areas = area(self.curves.of_map(scores))
        columns = {
            "share": located.share,
            "key_sign": located.is_right.double(),
            "pointing": located.hit,
            "sign": self._balance_signs(scores),
        }
        return {"areas": areas.tolist(), **{key: column.double().tolist() for key, column in columns.items()}}

    def _balance_signs(self, scores: Tensor) -> Tensor:
        """Of the samples that have both, [M]: the mean of two answers, 0 or 1 each.

        Do the key's cells whose change moves the unit the claimed way, and the other cells whose change moves it the
        other way, have the sign they should? Both are sums weighted by the effects measured on the network. A map of
        one sign is right in one of the two, whatever it shows.
        """
        effects, claim = self.claim.effects[0], self.claim
        regions = self.question.regions
        inside = claim.cells.total(regions.reshape(len(effects), *regions.shape[-3:]).double()) > 0
        sums = [
            torch.zeros(int(claim.samples.max()) + 1, dtype=torch.float64).index_add_(
                0, claim.samples, (part * chosen).sum(1)
            )
            for chosen in (inside & (effects > 0), ~inside & (effects < 0))
            for part in (scores * effects.abs(), effects.abs())
        ]
        both = (sums[1] > 0) & (sums[3] > 0)
        return (((sums[0] > 0).double() + (sums[2] < 0).double()) / 2)[both]


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

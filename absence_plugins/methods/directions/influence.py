"""The effect of every direction on every unit or class: those that it suppresses encode the concept's absence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import torch
from scipy import stats
from torch import Tensor, nn
from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

from absence_plugins.core.checks import check_choice, check_integer
from absence_plugins.core.direction import Direction
from absence_plugins.core.outputs import Logit, Output, as_columns
from absence_plugins.core.results import Result
from absence_plugins.core.table import Grid
from absence_plugins.core.units import Layer, Unit
from absence_plugins.methods.checkpoint import Checkpoint, KeptRows
from absence_plugins.methods.directions.heads import (
    Explained,
    Head,
    as_explained,
    head_of,
    images_of,
    layer_features,
    layer_of,
)
from absence_plugins.methods.directions.pairs import DirectionPairs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = 20  # encoded absences that a notebook shows
Test = Literal["step", "rcav"]
Correction = Literal["bh", "bonferroni"]


@dataclass(frozen=True)
class EncodedAbsence:
    """A unit or class that a concept suppresses: it encodes that concept's absence.

    ``effect`` < 0, in the output's units (``"step"``) or as a score (``"rcav"``); ``q`` is corrected.
    """

    output: str
    direction: int
    effect: float
    q: float


@dataclass(frozen=True, eq=False)
class Influence(Result):
    """Signed effect of I directions on K outputs; see :func:`influence`.

    Attributes:
        effect: [I, K]. ``"step"``: mean change of the output, in its units; ``"rcav"``: share of samples whose class
            probability rises minus share whose falls, in [-1, 1]. The sign: below 0 the concept suppresses the
            output, so the output encodes its absence.
        p: [I, K], two-sided.
        q: [I, K], corrected for all I x K tests.
        outputs: K names.
        test, correction, level: as asked for.
        n_samples: images.
    """

    effect: Tensor
    p: Tensor
    q: Tensor
    outputs: tuple[str, ...]
    test: Test
    correction: Correction
    level: float
    n_samples: int

    @property
    def significant(self) -> Tensor:
        """q <= level: [I, K] bool."""
        return self.q <= self.level

    @property
    def sdc(self) -> int:
        """Significant directions count: directions with an effect on any output."""
        return int(self.significant.any(1).sum())

    @property
    def scdp(self) -> int:
        """Significant class-direction pairs."""
        return int(self.significant.sum())

    @property
    def encoded_absences(self) -> tuple[EncodedAbsence, ...]:
        """Every output that a direction suppresses significantly, strongest first."""
        found = [
            EncodedAbsence(self.outputs[k], i, float(self.effect[i, k]), float(self.q[i, k]))
            for i, k in torch.nonzero(self.significant & (self.effect < 0)).tolist()
        ]
        return tuple(sorted(found, key=lambda one: one.effect))

    def table(self) -> str:
        """Encoded absences, one line each."""
        rows = [
            f"{one.output:<16} direction {one.direction:<4} effect {one.effect:+8.3f}  q {one.q:.2g}"
            for one in self.encoded_absences
        ]
        return "\n".join(rows or ["no encoded absences"])

    def __repr__(self) -> str:
        directions, outputs = self.effect.shape
        return (
            f"Influence({directions} directions on {outputs} outputs, {self.n_samples} images, test {self.test!r}: "
            f"SDC {self.sdc}, SCDP {self.scdp}, {len(self.encoded_absences)} encoded absences)"
        )

    def _heading(self) -> str:
        return repr(self)

    def _table_html(self) -> str:
        rows = [(one.output, str(one.direction), f"{one.effect:+.3f}", f"{one.q:.2g}") for one in self.encoded_absences]
        foot = f"encoded absences: outputs that the concept suppresses; {len(rows)} of {self.effect.numel()} pairs"
        more = (f"and {len(rows) - ROWS} more",) if len(rows) > ROWS else ()
        return Grid((("output", "direction", "effect", "q"), *rows[:ROWS]), foot=(*more, foot)).html()

    def figure(self, ax: Any = None) -> Figure:
        """Effects of all directions (rows) on all outputs (columns); needs matplotlib. ax: axes to draw into.

        The sign: red raises the output, blue holds it down; a dot: significant.
        """
        from absence_plugins.report.plots.influence import influence_figure

        return influence_figure(self, ax)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        return {
            "effect": self.effect.tolist(),
            "p": self.p.tolist(),
            "q": self.q.tolist(),
            "outputs": list(self.outputs),
            "test": self.test,
            "correction": self.correction,
            "level": self.level,
            "n_samples": self.n_samples,
            "sdc": self.sdc,
            "scdp": self.scdp,
            "encoded_absences": [vars(one) for one in self.encoded_absences],
        }


def influence(
    pairs: DirectionPairs,
    model: nn.Module,
    layer: str | Layer,
    dataset: Any,
    *,
    outputs: Sequence[Explained] | None = None,
    test: Test = "step",
    step: float = 1.0,
    n_permutations: int = 2000,
    correction: Correction = "bh",
    level: float = 0.05,
    seed: int = 0,
    batch_size: int = 64,
    channels_last: bool | None = None,
    progress: bool = False,
    checkpoint: Checkpoint | None = None,
) -> Influence:
    """Move features along every encoding direction and see what it does to every unit or class.

    ``"step"``: the features of one position per image where the detector is silent move by ``step * pairs.step[i]``
    along s_i, from a typical position without the concept to one with it; one where it fires is moved back. Positions
    are drawn as often as the concept is found there: a layer's head may tell top from bottom. Effect: mean change of
    the output towards presence. p: a sign-flip permutation test on the images' effects. Reads the data set twice.

    ``"rcav"``, as published: every position moves by ``step * pairs.step[i]``; score: share of images whose class
    probability rises minus share whose falls; p: share of ``n_permutations`` random directions with a score as
    large. In our measurements it rejects nothing where the effect is real: random directions contain concepts.

    Source: Doumanoglou et al., arXiv 2509.23926; RCAV: Pfau et al., 2021.

    Args:
        pairs: fitted on this layer.
        model: in any mode; runs in evaluation mode, without a trace.
        layer: as in ``fit_model``.
        dataset: images as a tensor, a data set or a loader.
        outputs: classes as numbers, outputs as in :mod:`absence_plugins.core.outputs`, or hidden units and directions
            (:class:`~absence_plugins.Unit`, :class:`~absence_plugins.Direction`) of the layer itself or of one behind
            it; by default all classes.
        test: see above.
        step: in units of ``pairs.step``.
        n_permutations: sign flips or random directions; the smallest p is 1 / (n_permutations + 1).
        correction: ``"bh"`` (Benjamini-Hochberg) or ``"bonferroni"``, over directions x outputs.
        level: q at most this is significant.
        seed: of positions and permutations; the global random state is untouched.
        batch_size: images per forward.
        channels_last: as in ``fit_model``.
        progress: show a progress bar.
        checkpoint: keeps the images' effects: the same call resumes from them, and its result is bit-identical.

    Returns:
        An :class:`Influence`. The sign: effect < 0: the concept suppresses the output.

    Raises:
        ValueError: unknown test or correction, too few permutations for the correction to reject anything, no images, a
            unit in front of the layer, outputs with more axes than classes that are not named.

    Example:
        >>> from absence_plugins.data.shapes_cnn import LAYER, shapes_problem
        >>> problem = shapes_problem()
        >>> images = problem.images[:200]
        >>> pairs = DirectionPairs(5, starts=6, steps=100).fit_model(problem.model, LAYER, images)
        >>> found = influence(pairs, problem.model, LAYER, images)
        >>> found.encoded_absences[0].effect < 0
        True
    """
    for name, value, known in (("test", test, ("step", "rcav")), ("correction", correction, ("bh", "bonferroni"))):
        check_choice(name, value, known)
    check_integer("n_permutations", n_permutations)
    batches = images_of(dataset, batch_size, model)
    first = next(batches, None)
    if first is None:
        raise ValueError("dataset is empty; pass images")
    at = layer_of(layer, channels_last)
    read = _Outputs(head_of(model, at, first), outputs)
    generator = torch.Generator().manual_seed(seed)
    ways = pairs.encoding * pairs.step * step  # [D, I]
    if test == "rcav":
        # as long as the concepts' steps are on average
        drawn = torch.randn(len(ways), n_permutations, generator=generator)
        noise = drawn / drawn.norm(dim=0) * ways.norm(dim=0).mean().cpu()
        ways = torch.cat([ways, noise.to(ways)], 1)
    kept, seen = KeptRows(checkpoint), 0
    places: Tensor | None = None
    count = ways.shape[1]
    total = len(dataset) * count if isinstance(dataset, Tensor) else None  # an effect: of a direction on an image
    with torch.no_grad(), kept, tqdm(total=total, desc="influence", unit="effect", disable=not progress) as bar:
        positions = _count_positions(model, at, first) if kept.parts and test == "step" else 0
        for images in chain([first], batches):
            seen += len(images)
            if seen <= len(kept):
                _skip_draws(generator, len(images), positions, count)
                bar.update(len(images) * count)
            else:
                features = layer_features(model, at, images)
                if test == "step":
                    if places is None:
                        places = _places(pairs, model, at, dataset, batch_size, progress=progress)
                    kept.append(_step_effects(pairs, read, features, ways.to(features), places, generator, bar.update))
                else:
                    kept.append(_rcav_scores(read, features, ways.to(features), bar.update))
    each = kept.joined().double().cpu()  # [N, I, K], for "rcav" [N, I + permutations, K]
    if test == "step":
        effect, p = _sign_flips(each, n_permutations, generator)
    else:
        effect, p = _against_random(each.mean(0), pairs.n_directions)
    q = _corrected(p, correction, level, n_permutations)
    return Influence(effect, p, q, read.names(effect.shape[1]), test, correction, level, len(each))


def _against_random(scores: Tensor, directions: int) -> tuple[Tensor, Tensor]:
    """Scores [I + permutations, K] -> the directions' own [I, K], and p: how often a random direction scores as
    high.
    """
    effect, null = scores[:directions], scores[directions:]
    exceed = (null.abs()[None] >= effect.abs()[:, None] - 1e-12).sum(1)
    return effect, (1.0 + exceed) / (1.0 + len(null))


def _corrected(p: Tensor, correction: Correction, level: float, n_permutations: int) -> Tensor:
    """q [I, K] over all tests. Raises ValueError if no p could be small enough."""
    tests = p.numel()
    if correction == "bh":
        return torch.from_numpy(stats.false_discovery_control(p.numpy().ravel()).reshape(p.shape))
    if tests / (n_permutations + 1) > level:
        raise ValueError(
            f"n_permutations={n_permutations} can reject nothing in {tests} tests with Bonferroni's correction; pass "
            f"at least {int(tests / level)}, or correction='bh'"
        )
    return (p * tests).clamp(max=1)


class _Outputs:
    """Features of the layer -> the outputs asked for, [n, K]."""

    def __init__(self, head: Head, outputs: Sequence[Explained] | None) -> None:
        if outputs is not None and not len(outputs):
            raise ValueError("outputs is empty; name classes or units, or pass None for all classes")
        self.head = head
        self.outputs = None if outputs is None else [as_explained(one) for one in outputs]
        self.units = [one for one in self.outputs or () if not isinstance(one, Output)]

    def __call__(self, features: Tensor) -> Tensor:
        if self.outputs is None:
            logits = as_columns(self.head(features))
            if logits.dim() > 2:
                raise ValueError(
                    f"the model's outputs have the shape {tuple(logits.shape[1:])} behind the batch; name those to "
                    "test, for "
                    f"example outputs=[Logit({(0,) * (logits.dim() - 1)})] with Logit of absence_plugins.core.outputs"
                )
            return logits
        logits, values = self.head.read(features, self.units) if self.units else (self.head(features), [])
        of_units = iter(values)
        return torch.stack(
            [one.values(logits) if isinstance(one, Output) else next(of_units) for one in self.outputs], 1
        )

    def names(self, count: int) -> tuple[str, ...]:
        if self.outputs is None:
            return tuple(f"class {k}" for k in range(count))
        return tuple(_name(one) for one in self.outputs)


def _name(output: Output | Unit | Direction) -> str:
    if isinstance(output, Logit) and isinstance(output.index, int) and output.sign == 1:
        return f"class {output.index}"
    if isinstance(output, Unit) and output.layer and output.position is None:
        return f"{output.layer}:{output.index}"
    return output.describe()


def _places(
    pairs: DirectionPairs, model: nn.Module, layer: Layer, dataset: Any, batch_size: int, *, progress: bool
) -> Tensor:
    """How often a direction's detector fires at each position, [H * W, I] float64, all above 0."""
    times, count = torch.zeros(()), 0
    total = len(dataset) if isinstance(dataset, Tensor) else None
    shown = tqdm(total=total, desc="where directions fire", unit="image", leave=False, disable=not progress)
    with shown as bar:
        for images in images_of(dataset, batch_size, model):
            fires = pairs.logits(layer_features(model, layer, images)) > 0
            times = times.to(fires.device) + fires.flatten(1, 2).sum(0)
            count += len(images)
            bar.update(len(images))
    return (times.double() + 0.01) / count


def _count_positions(model: nn.Module, layer: Layer, images: Tensor) -> int:
    _, rows, columns, _ = layer_features(model, layer, images[:1]).shape
    return int(rows * columns)


def _skip_draws(generator: torch.Generator, images: int, positions: int, directions: int) -> None:
    """Draw what :func:`_step_effects` draws of a batch whose effects are kept; of no positions nothing."""
    for _ in range(2 * directions if positions else 0):
        torch.rand(images, positions, generator=generator, dtype=torch.float64)


def _step_effects(
    pairs: DirectionPairs, read: _Outputs, features: Tensor, ways: Tensor, places: Tensor, generator: torch.Generator,
    tick: Callable[[int], object],
) -> Tensor:  # fmt: skip
    """Change of every output towards presence, [n, I, K]; places [H * W, I]: how often a detector fires there; ``tick``
    is told of n effects more after each direction.
    """
    n, h, w, d = features.shape
    before = read(features)
    fires = (pairs.logits(features) > 0).reshape(n, h * w, -1)
    effects = []
    for i in range(ways.shape[1]):
        total, parts = torch.zeros_like(before), torch.zeros(n, 1, device=before.device)
        for there, sign in ((fires[..., i], -1.0), (~fires[..., i], 1.0)):
            # one position of each image that has any
            draw = torch.rand(n, h * w, generator=generator, dtype=torch.float64).to(features.device)
            chosen = (draw ** (1 / places[:, i]) * there).argmax(1)  # with probability in proportion to places
            any_ = there.any(1).to(features.dtype)[:, None]
            moved = features.reshape(n, h * w, d).clone()
            moved[torch.arange(n, device=chosen.device), chosen] += sign * any_ * ways[:, i]
            total += sign * (read(moved.reshape(features.shape)) - before) * any_
            parts += any_
        effects.append(total / parts.clamp(min=1))
        tick(n)
    return torch.stack(effects, 1)


def _rcav_scores(read: _Outputs, features: Tensor, ways: Tensor, tick: Callable[[int], object]) -> Tensor:
    """+1 where a class's probability rises, -1 where it falls, [n, I, K]; ``tick`` as in :func:`_step_effects`."""
    before, signs = read(features).softmax(1), []
    for way in ways.T:
        signs.append((read(features + way).softmax(1) - before).sign())
        tick(len(features))
    return torch.stack(signs, 1)


def _sign_flips(each: Tensor, n_permutations: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mean [I, K] of effects [N, I, K], and two-sided p: how often random signs give a mean as large."""
    flat = each.flatten(1)
    observed = flat.mean(0)
    exceed = torch.zeros_like(observed)
    done = 0
    while done < n_permutations:
        size = min(256, n_permutations - done)
        signs = torch.randint(0, 2, (size, len(flat)), generator=generator).double() * 2 - 1
        exceed += ((signs @ flat / len(flat)).abs() >= observed.abs() - 1e-12).sum(0)
        done += size
    p = (1 + exceed) / (1 + n_permutations)
    return observed.reshape(each.shape[1:]), p.reshape(each.shape[1:])

"""The effect of every direction on every unit or class: those that it suppresses encode the concept's absence."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.checks import check_choice, check_integer, check_number, check_seed
from absence_plugins.core.groups import as_groups
from absence_plugins.core.ownership import own_folder
from absence_plugins.core.results import Result
from absence_plugins.core.table import Grid
from absence_plugins.core.units import Layer
from absence_plugins.methods.checkpoint import Checkpoint
from absence_plugins.methods.directions.effects import (
    Source,
    count_places,
    draw_numbers,
    rcav_scores,
    step_effects,
)
from absence_plugins.methods.directions.estimate import EffectsBar
from absence_plugins.methods.directions.explained import ExplainedOutputs, Wanted, as_list, is_per_sample
from absence_plugins.methods.directions.heads import Head, head_of, layer_of
from absence_plugins.methods.directions.inputs import (
    batches_of,
    check_readable_again,
    count_samples,
    identify_inputs,
    take_rows,
)
from absence_plugins.methods.directions.pairs import DirectionPairs
from absence_plugins.methods.directions.positions import choose_prefix
from absence_plugins.methods.directions.significance import (
    Correction,
    compare_with_random,
    correct,
    flip_signs,
    warn_of_few,
)
from absence_plugins.methods.identity import digest_of, identify_model
from absence_plugins.methods.kept_rows import KeptRows
from absence_plugins.methods.rank_sums import RankSums
from absence_plugins.methods.ranks import from_first, ranks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEMORY = 4.0  # GB of effects, above which a warning says so
ROWS = 20  # encoded absences that a table shows
Test = Literal["step", "rcav"]


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
        """The strongest encoded absences, one line each."""
        found = self.encoded_absences
        rows = [
            f"{one.output:<16} direction {one.direction:<4} effect {one.effect:+8.3f}  q {one.q:.2g}"
            for one in found[:ROWS]
        ]
        rows += [f"and {len(found) - ROWS} more in encoded_absences"] if len(found) > ROWS else []
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
    outputs: Sequence[Wanted] | Wanted | None = None,
    test: Test = "step",
    step: float = 1.0,
    n_permutations: int = 2000,
    correction: Correction = "bh",
    level: float = 0.05,
    seed: int = 0,
    batch_size: int = 64,
    channels_last: bool | None = None,
    prefix_tokens: int | None = None,
    groups: Any = None,
    progress: bool = False,
    checkpoint: Checkpoint | Path | str | None = None,
) -> Influence:
    """Move features along every encoding direction and see what it does to every unit or class.

    ``"step"``: the features of one position per image where the detector is silent move by ``step * pairs.step[i]``
    along s_i, from a typical position without the concept to one with it; one where it fires is moved back. Positions
    are drawn as often as the concept is found there: a layer's head may tell top from bottom. Effect: mean change of
    the output towards presence. p: a sign-flip permutation test on the images' effects. Reads the data set twice.

    ``"rcav"``, as published: every position moves by ``step * pairs.step[i]``; score: share of images whose class
    probability (of other outputs: value) rises minus share whose falls; p: share of ``n_permutations`` random
    directions with a score as large. In our measurements it rejects nothing where the effect is real: random
    directions contain concepts.

    Under ``torchrun`` the ranks share out the images (a loader is read whole by each of them), all get the result, and
    it is bit-identical for every number of ranks.

    Source: Doumanoglou et al., arXiv 2509.23926; RCAV: Pfau et al., 2021.

    Args:
        pairs: fitted on this layer.
        model: in any mode; runs in evaluation mode, without a trace.
        layer: as in ``fit_model``.
        dataset: what the model takes as a tensor, tensors by name, a data set or a loader.
        outputs: classes as numbers, outputs as in :mod:`absence_plugins.core.outputs` (a log-ratio of two classes is
            their ``Margin``), or hidden units and directions (:class:`~absence_plugins.Unit`,
            :class:`~absence_plugins.Direction`) of the layer itself or of one behind it; a
            :class:`~absence_plugins.Layer` stands for all of its units. By default all classes.
        test: see above.
        step: in units of ``pairs.step``.
        n_permutations: sign flips or random directions; the smallest p is 1 / (n_permutations + 1).
        correction: ``"bh"`` (Benjamini-Hochberg) or ``"bonferroni"``, over directions x outputs.
        level: q at most this is significant.
        seed: of positions and permutations; the global random state is untouched.
        batch_size: images per forward.
        channels_last: as in ``fit_model``.
        prefix_tokens: as in ``fit_model``: these tokens, and those that an attention mask leaves out, do not move.
        groups: [N] integers or strings, equal for images that are not independent (crops, frames, patients): in
            ``"step"`` they change signs together, so p is of the groups. In the order of the data set, in which a
            loader must then read.
        progress: show progress bars, and before long work how long it takes.
        checkpoint: a folder that keeps the images' effects: the same call resumes from them after a kill, and its
            result is bit-identical. Only data in a fixed order can be resumed.

    Returns:
        An :class:`Influence`. The sign: effect < 0: the concept suppresses the output.

    Raises:
        ValueError: unknown test or correction, a level, step or batch size out of range, pairs that are not fitted, too
            few permutations for the correction to reject anything, no images, a unit in front of the layer, outputs
            with more axes than classes that are not named, an output that is no number, a checkpoint of other work.
        TypeError: an iterator as data set: it can be read only once.

    Example:
        >>> from absence_plugins.data.shapes_cnn import LAYER, shapes_problem
        >>> problem = shapes_problem()
        >>> images = problem.images[:200]
        >>> pairs = DirectionPairs(5, starts=6).fit_model(problem.model, LAYER, images)
        >>> found = influence(pairs, problem.model, LAYER, images)
        >>> found.encoded_absences[0].effect < 0
        True
    """
    for name, value, known in (("test", test, ("step", "rcav")), ("correction", correction, ("bh", "bonferroni"))):
        check_choice(name, value, known)
    check_integer("n_permutations", n_permutations)
    level, step = check_number("level", level, 0, 1, above=0), check_number("step", step, above=0)
    pairs._check_fitted()
    chosen = any(is_per_sample(one) for one in as_list(outputs) or ())
    ordered = (("groups=", groups is not None), ("checkpoint=", checkpoint is not None), ("outputs per sample", chosen))
    check_readable_again(dataset, [name for name, is_given in ordered if is_given])
    independent = images = count_samples(dataset)
    if groups is not None:
        if test == "rcav" or images is None:
            raise ValueError("groups= needs test='step' and data of known size (a tensor, a data set, its loader)")
        numbers = as_groups(groups, images)  # its errors come before the work
        independent = images if numbers is None else int(numbers.max()) + 1
    first = next(batches_of(dataset, batch_size, model), None)
    if first is None:
        raise ValueError("dataset is empty; pass images")
    at = layer_of(layer, channels_last)
    head = head_of(model, at, first)
    read = ExplainedOutputs(head, outputs)
    prefix = choose_prefix(prefix_tokens, model, at, head.example, tuple(head.shape[2:]))
    source = Source(model, at, dataset, batch_size, prefix, head)
    names = _names(read, head, source, first)
    tests = pairs.n_directions * len(names)
    correct(torch.zeros(1, tests), correction, level, n_permutations)  # before the work
    _say_memory(images, tests, test)
    if test == "step" and independent is not None:
        warn_of_few(independent, "images" if groups is None else "groups", tests, correction, level)
    run = _Run(pairs, read, source, step, n_permutations, check_seed(seed), progress, groups)
    folder = checkpoint.folder if isinstance(checkpoint, Checkpoint) else checkpoint
    with own_folder(folder), torch.no_grad():
        keeper = _open(checkpoint, run, test, take_rows(first, slice(1)))
        effect, p, count = run.steps(keeper) if test == "step" else run.rcav(keeper)
    q = correct(p, correction, level, n_permutations)
    return Influence(effect, p, q, names, test, correction, level, count)


def _names(read: ExplainedOutputs, head: Head, source: Source, first: Any) -> tuple[str, ...]:
    """Of the K outputs, as one image has them; rejects what cannot be read before the work begins."""
    with torch.no_grad():
        batch = source.batch(0, take_rows(first, slice(1)))
        return read.names(read.read(batch.features, batch.samples, batch.inputs).shape[1])


def _say_memory(images: int | None, tests: int, test: Test) -> None:
    """Warn where the images' effects are large; of ``"rcav"`` only sums are kept."""
    size = 0.0 if images is None else images * tests * 4 / 2**30
    if test == "step" and size > MEMORY:
        warnings.warn(
            f"the effects of {images:,} images on {tests:,} pairs of direction and output take {size:.0f} GB of memory; "
            "less with fewer images, or with outputs= of the classes or units that matter",
            AbsenceWarning,
            stacklevel=3,
        )


def _open(checkpoint: Checkpoint | Path | str | None, run: _Run, test: Test, probe: Any) -> Checkpoint | None:
    """A folder as the checkpoint of this work; one that the caller has opened as it is."""
    if checkpoint is None or isinstance(checkpoint, Checkpoint):
        return checkpoint
    source, pairs, read = run.source, run.pairs, run.read
    at = {"layer": source.layer.name, "channels": source.layer.channels, "side": source.layer.side}
    settings = {
        **at, "explained": read.identity, "test": test, "step": run.step, "seed": run.seed, "prefix_tokens": source.prefix,
        "pairs": digest_of(pairs.decoding, pairs.threshold, pairs.encoding, pairs.typical),
        **({"n_permutations": run.n_permutations} if test == "rcav" else {}),
    }  # fmt: skip
    belongs = identify_inputs(source.dataset, probe) | identify_model(source.model, probe, source.layer)
    return Checkpoint(checkpoint, settings, "influence", belongs=belongs)


@dataclass(frozen=True, eq=False)
class _Run:
    """What both tests share."""

    pairs: DirectionPairs
    read: ExplainedOutputs
    source: Source
    step: float
    n_permutations: int
    seed: int
    progress: bool
    groups: Any

    @property
    def ways(self) -> Tensor:
        """The directions' steps, [D, I]."""
        return self.pairs.encoding * self.pairs.step * self.step

    def steps(self, keeper: Checkpoint | None) -> tuple[Tensor, Tensor, int]:
        """Mean effects and p, [I, K], and the number of images. Several ranks share out the batches."""
        generator = torch.Generator().manual_seed(self.seed)
        images, ways = count_samples(self.source.dataset), self.ways
        with KeptRows(keeper, images) as kept, self._bar(ways.shape[1]) as bar:
            if images is None or len(kept) < images:
                places = count_places(self.pairs, self.source, keeper, progress=self.progress)
            for numbers, inputs in self.source.inputs(kept.wants):
                drawn = draw_numbers(generator, len(numbers), ways.shape[1])
                if inputs is None:
                    bar.skip(len(numbers) * ways.shape[1])
                    continue
                batch = self.source.batch(numbers.start, inputs)
                made = step_effects(self.pairs, self.read, batch, ways.to(batch.features), places, drawn, bar.update)
                kept.put(numbers, made)  # an earlier run may have ended inside this batch
            each = kept.joined(first_only=True)
        return from_first(lambda: self._flip_signs(each, generator))

    def _flip_signs(self, each: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, int]:
        """Mean effects and p of the images' effects [N, I, K]."""
        pairs, groups = each[0].numel(), as_groups(self.groups, len(each))
        with tqdm(total=pairs, desc="sign flips", unit="pair", leave=False, disable=not self.progress) as flips:
            effect, p = flip_signs(each, self.n_permutations, generator, flips.update, groups)
        return effect, p, len(each)

    def rcav(self, keeper: Checkpoint | None) -> tuple[Tensor, Tensor, int]:
        """As :meth:`steps`, of every position and against random directions."""
        generator = torch.Generator().manual_seed(self.seed)
        ways = self.ways
        # as long as the concepts' steps are on average
        drawn = torch.randn(len(ways), self.n_permutations, generator=generator)
        noise = drawn / drawn.norm(dim=0) * ways.norm(dim=0).mean().cpu()
        ways = torch.cat([ways, noise.to(ways)], 1)
        sums = RankSums(keeper, "rcav")
        with sums.keeping() as save, self._bar(ways.shape[1]) as bar:
            for numbers, inputs in self.source.inputs(sums.wants):
                if inputs is None:
                    bar.skip(len(numbers) * ways.shape[1])
                    continue
                batch = self.source.batch(numbers.start, inputs)
                sums.add(numbers, rcav_scores(self.read, batch, ways.to(batch.features), bar.update).double().cpu())
                save()
        total, seen = sums.total()
        effect, p = compare_with_random(total / seen, self.pairs.n_directions)
        return effect, p, seen

    def _bar(self, ways: int) -> EffectsBar:
        images = count_samples(self.source.dataset)
        rank, world = ranks()
        total = None if images is None else images * ways
        return EffectsBar(total, shown=self.progress and rank == 0, ranks=world)

"""What each direction does to each unit or class: which are held down, so encode the concept's absence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import torch
from scipy import stats
from torch import Tensor, nn
from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

from absence_plugins.core.units import Unit
from absence_plugins.methods.directions.checks import check_whole
from absence_plugins.methods.directions.heads import Head, head_of, images_of, layer_features
from absence_plugins.methods.directions.pairs import DirectionPairs

Test = Literal["step", "rcav"]
Correction = Literal["bh", "bonferroni"]


@dataclass(frozen=True)
class EncodedAbsence:
    """A unit or class that a concept holds down: it encodes that concept's absence.

    ``effect`` < 0, in the output's units (``"step"``) or as a score (``"rcav"``); ``q`` is corrected.
    """

    output: str
    direction: int
    effect: float
    q: float


@dataclass(frozen=True, eq=False)
class Influence:
    """Signed effect of I directions on K outputs; see :func:`influence`.

    Attributes:
        effect: [I, K]. ``"step"``: mean change of the output, in its units; ``"rcav"``: share of samples whose class
            probability rises minus share whose falls, in [-1, 1]. The sign: below 0 the concept holds the output
            down, so the output encodes its absence.
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
        """Every output that a direction holds down significantly, strongest first."""
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
    layer: str,
    dataset: Any,
    *,
    outputs: Sequence[int | Unit] | None = None,
    test: Test = "step",
    step: float = 1.0,
    n_permutations: int = 2000,
    correction: Correction = "bh",
    level: float = 0.05,
    seed: int = 0,
    batch_size: int = 64,
    channels_last: bool = False,
    progress: bool = False,
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
        outputs: classes, or hidden units behind the layer; by default all classes.
        test: see above.
        step: in units of ``pairs.step``.
        n_permutations: sign flips or random directions; the smallest p is 1 / (n_permutations + 1).
        correction: ``"bh"`` (Benjamini-Hochberg) or ``"bonferroni"``, over directions x outputs.
        level: q at most this is significant.
        seed: of positions and permutations; the global random state is untouched.
        batch_size: images per forward.
        channels_last: as in ``fit_model``.
        progress: show a progress bar.

    Returns:
        An :class:`Influence`. The sign: effect < 0: the concept holds the output down.

    Raises:
        ValueError: unknown test or correction, too few permutations for the correction to reject anything, no images.

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
        if value not in known:
            raise ValueError(f"{name}={value!r} must be one of {', '.join(known)}")
    check_whole("n_permutations", n_permutations, 1)
    batches = images_of(dataset, batch_size, model)
    first = next(batches, None)
    if first is None:
        raise ValueError("dataset is empty; pass images")
    head = head_of(model, layer, first, channels_last=channels_last)
    read = _Outputs(head, outputs)
    generator = torch.Generator().manual_seed(seed)
    ways = pairs.encoding * pairs.step * step  # [D, I]
    if test == "rcav":
        # as long as the concepts' steps are on average
        drawn = torch.randn(len(ways), n_permutations, generator=generator)
        noise = drawn / drawn.norm(dim=0) * ways.norm(dim=0).mean().cpu()
        ways = torch.cat([ways, noise.to(ways)], 1)
    found: list[Tensor] = []
    count = 0
    places: Tensor | None = None
    with torch.no_grad(), tqdm(desc="influence", unit="images", disable=not progress) as bar:
        for images in chain([first], batches):
            count += len(images)
            features = layer_features(model, layer, images, channels_last=channels_last)
            if test == "step":
                if places is None:
                    places = _places(pairs, model, layer, dataset, batch_size, channels_last)
                found.append(_step_effects(pairs, read, features, ways.to(features), places, generator))
            else:
                found.append(_rcav_scores(read, features, ways.to(features)))
            bar.update(len(images))
    if test == "step":
        each = torch.cat(found).double().cpu()  # [N, I, K]
        effect, p = _sign_flips(each, n_permutations, generator)
    else:
        scores = torch.cat(found).double().cpu().mean(0)  # [I + permutations, K]
        effect, null = scores[: pairs.n_directions], scores[pairs.n_directions :]
        exceed = (null.abs()[None] >= effect.abs()[:, None] - 1e-12).sum(1)
        p = (1.0 + exceed) / (1.0 + n_permutations)
    tests = p.numel()
    if correction == "bonferroni" and tests / (n_permutations + 1) > level:
        raise ValueError(
            f"n_permutations={n_permutations} can reject nothing in {tests} tests with Bonferroni's correction; pass at least "
            f"{int(tests / level)}, or correction='bh'"
        )
    corrected = (
        torch.from_numpy(stats.false_discovery_control(p.numpy().ravel()).reshape(p.shape))
        if correction == "bh"
        else (p * tests).clamp(max=1)
    )
    return Influence(effect, p, corrected, read.names(effect.shape[1]), test, correction, level, count)


class _Outputs:
    """Features of the layer -> the outputs asked for, [n, K]."""

    def __init__(self, head: Head, outputs: Sequence[int | Unit] | None) -> None:
        if outputs is not None and not len(outputs):
            raise ValueError("outputs is empty; name classes or units, or pass None for all classes")
        self.head, self.outputs = head, outputs
        self.classes = None if outputs is None else [one for one in outputs if isinstance(one, int)]

    def __call__(self, features: Tensor) -> Tensor:
        if self.outputs is None:
            return self.head(features).flatten(1)
        logits = self.head(features) if self.classes else features
        return torch.stack(
            [logits[:, one] if isinstance(one, int) else self.head.unit(features, one) for one in self.outputs], 1
        )

    def names(self, count: int) -> tuple[str, ...]:
        if self.outputs is None:
            return tuple(f"class {k}" for k in range(count))
        return tuple(f"class {o}" if isinstance(o, int) else f"{o.layer}:{o.index}" for o in self.outputs)


def _places(
    pairs: DirectionPairs, model: nn.Module, layer: str, dataset: Any, batch_size: int, channels_last: bool
) -> Tensor:
    """How often a direction's detector fires at each position, [H * W, I] float64, all above 0."""
    times, count = torch.zeros(()), 0
    for images in images_of(dataset, batch_size, model):
        fires = pairs.logits(layer_features(model, layer, images, channels_last=channels_last)) > 0
        times = times.to(fires.device) + fires.flatten(1, 2).sum(0)
        count += len(images)
    return (times.double() + 0.01) / count


def _step_effects(
    pairs: DirectionPairs, read: _Outputs, features: Tensor, ways: Tensor, places: Tensor, generator: torch.Generator
) -> Tensor:
    """Change of every output towards presence, [n, I, K]; places [H * W, I]: how often a detector fires there."""
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
    return torch.stack(effects, 1)


def _rcav_scores(read: _Outputs, features: Tensor, ways: Tensor) -> Tensor:
    """+1 where a class's probability rises, -1 where it falls, [n, I, K]."""
    before = read(features).softmax(1)
    return torch.stack([(read(features + way).softmax(1) - before).sign() for way in ways.T], 1)


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

"""The estimator: encoding-decoding direction pairs of a layer, found without labels."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from absence_plugins.core.checks import check_choice, check_integer, check_seed
from absence_plugins.core.direction import Direction
from absence_plugins.core.ownership import own_folder
from absence_plugins.core.results import Result
from absence_plugins.core.table import Grid
from absence_plugins.core.units import Layer
from absence_plugins.methods.directions.checks import check_head, check_positions, check_rank, find_unused
from absence_plugins.methods.directions.features import Features, as_features
from absence_plugins.methods.directions.few import MOST, few
from absence_plugins.methods.directions.given import describe_given
from absence_plugins.methods.directions.heads import head_of, layer_of
from absence_plugins.methods.directions.outliers import bound_outliers, note_outliers
from absence_plugins.methods.directions.paper import paper
from absence_plugins.methods.directions.positions import collect_features, note_positions
from absence_plugins.methods.directions.reading import read_solution
from absence_plugins.methods.directions.recipe import Background, Head, Options
from absence_plugins.methods.directions.report import DirectionReport, note_directions
from absence_plugins.methods.directions.resume import open_fit
from absence_plugins.methods.directions.saving import FORMAT, load_pairs, save_pairs
from absence_plugins.methods.directions.scalable import scalable
from absence_plugins.methods.directions.signals import Signal
from absence_plugins.methods.directions.whitening import Whitening, fit_whitening, note_noise

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class DirectionPairs(Result):
    """Concepts that a layer writes and reads: directions with which each is encoded, detectors that decode it.

    x_p = S a_p + D b_p + constant: features x_p at position p hold I concepts with strengths a along *encoding*
    directions s_i, and distractors. A *decoding* direction w_i with threshold b_i reads concept i:
    y_pi = sigmoid(w_i . x_p - b_i). Found without labels, from the features' structure and from what the network
    behind the layer (``head``) uses.

    Source: Doumanoglou et al., arXiv 2509.23926 (TMLR 2026). ``recipe="paper"`` trains as published;
    ``recipe="robust"``, the default, is ours. Of up to 8 directions: clusters and independent sources of whitened features as
    starts, each made exact by what is left of the features given which concepts are present; the likeliest is taken. Of more:
    independent sources, of which the most one-sided ones are concepts; each has to be found in both halves of the images
    (``report_`` calls the others "unresolved"). Concepts may be correlated, unequally frequent, or at the same positions.

    Args:
        n_directions: I, at least 2 and at most the rank of the features without noise. Of more directions than concepts the extra
            ones stay inactive or split a concept; ``report_`` says which.
        background: what explains positions without any concept, for ``recipe="paper"`` only: ``"none"``, nothing;
            ``"virtual"``, a detector y_0 = prod (1 - y_i); ``"detectors"``, ``n_background`` further detectors that are
            then dropped. The default recipe allows for such positions anyway.
        signal: how encoding directions are estimated: ``"joint"``, by least squares on all strengths at once; or one by
            one, where a detector fires ``"exclusive"``-ly, or, as published, wherever it is ``"positive"``. None: joint,
            with ``recipe="paper"`` exclusive.
        recipe: ``"robust"`` or ``"paper"`` (``"given"``: of :meth:`from_directions`).
        seed: the same seed gives the same bits; the global random state is untouched.
        starts: how many (robust, up to 8 directions); by default 24, or 4 per direction if that is more. An
            ``AbsenceWarning`` names options that the recipe does not read.
        steps: optimizer steps of each stage (paper); None: as published (20,000 for each of two stages, or
            800, 2,000 and 2,000 passes over the images from 9 directions on).
        batch_size: images per step (paper); 250 by default.
        head_batch: how many images go through ``head``; lower it for a deep network.
        step_range: how far positions are moved to the detectors' hyperplanes for the head (paper); (0.5, 0.9) by default.
        n_background: see ``background``; 1 by default.
        progress: show a progress bar.

    Attributes:
        decoding: [D, I], w, in 1 / units of the features. Directions are numbered from the one that moves the head's
            logits most (``report_.effect``), without a head from the one that fires most often.
        threshold: [I], b.
        encoding: [D, I], s, unit norm. The sign: w_i . s_i > 0, so adding s_i to a feature makes its detector fire.
        typical: [2, I], the mean of w_i . x - b_i over the positions where the detector is silent, and where it fires.
        losses_: the published losses at the end, by name, without their weights. No "alignment" without a head.
        report_: :class:`~absence_plugins.methods.directions.DirectionReport`, what became of every direction.
        notes_: what the reader of a result must know, for example that there was no head.
        whitening_: the coordinates in which it was fitted.

    Raises:
        ValueError, TypeError: NaN, infinite or constant features, features that are not [N, H, W, D], too few
            positions or dimensions, a head without two finite logits or a gradient; each with the remedy.

    Example:
        >>> from absence_plugins.data.synthetic_directions import synthetic_directions
        >>> data = synthetic_directions(images=600)
        >>> pairs = DirectionPairs(3, starts=8).fit(data.features, head=data.head)
        >>> pairs
        DirectionPairs(3 directions in 16 dimensions, robust, with head; 3 active)
        >>> cosines = (data.encoding.T @ pairs.encoding).amax(1)
        >>> bool((cosines > 0.9).all())
        True
    """

    decoding: Tensor
    threshold: Tensor
    encoding: Tensor
    typical: Tensor
    losses_: dict[str, float]
    report_: DirectionReport
    notes_: tuple[str, ...]
    whitening_: Whitening

    def __init__(
        self,
        n_directions: int,
        *,
        background: Background = "none",
        signal: Signal | None = None,
        recipe: Literal["robust", "paper", "given"] = "robust",
        seed: int = 0,
        starts: int | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        head_batch: int = 64,
        step_range: tuple[float, float] | None = None,
        n_background: int | None = None,
        progress: bool = False,
    ) -> None:
        n_directions = check_integer("n_directions", n_directions, least=1 if recipe == "given" else 2)
        given = {"starts": starts, "steps": steps, "batch_size": batch_size, "n_background": n_background}
        chosen: dict[str, Any] = {
            name: check_integer(name, value) for name, value in given.items() if value is not None
        }
        head_batch, seed = check_integer("head_batch", head_batch), check_seed(seed)
        for name, choice, known in (
            ("background", background, ("none", "virtual", "detectors")),
            ("signal", signal or "joint", ("joint", "exclusive", "positive")),
            ("recipe", "robust" if recipe == "given" else recipe, ("robust", "paper")),
        ):
            check_choice(name, choice, known)
        if step_range is not None:
            low, high = step_range
            if not 0 < low <= high <= 1:
                raise ValueError(f"step_range={step_range} must be two numbers with 0 < low <= high <= 1")
            chosen["step_range"] = (low, high)
        unused = find_unused(recipe, n_directions, chosen)
        self.recipe = recipe
        self.options = Options(
            n_directions, background, signal=signal, seed=seed, head_batch=head_batch, progress=progress,
            **{name: value for name, value in chosen.items() if name not in unused},
        )  # fmt: skip

    def __repr__(self) -> str:
        if not hasattr(self, "encoding"):
            return f"DirectionPairs({self.options.n_directions} directions, {self.recipe}, not fitted)"
        aligned = (
            "with head"
            if self.report_.effect is not None or "alignment" in self.losses_
            else "without head: no alignment with the network"
        )
        aligned = "not fitted" if self.recipe == "given" else aligned
        status = self.report_.status
        counts = ", ".join(
            f"{status.count(s)} {s}" for s in ("active", "split", "inactive", "unresolved") if s in status
        )
        return (
            f"DirectionPairs({self.n_directions} directions in {self.encoding.shape[0]} dimensions, {self.recipe}, "
            f"{aligned}; {counts})"
        )

    def _heading(self) -> str:
        return repr(self)

    def _grid(self) -> Grid:
        fitted = hasattr(self, "report_")
        return self.report_.grid(self.notes_) if fitted else Grid((("direction",),), foot=("not fitted yet",))

    def figure(self, ax: Any = None) -> Figure:
        """How often each direction's detector fires, and how often alone; needs matplotlib. ax: axes to draw into."""
        self._check_fitted()
        return self.report_.figure(ax)

    def to_dict(self) -> dict[str, Any]:
        """What was asked for and what became of every direction, ready for JSON; tensors are in :meth:`save`'s."""
        self._check_fitted()
        plain = {"format": FORMAT, "recipe": self.recipe, "options": asdict(self.options), "losses": self.losses_}
        return plain | {"report": self.report_.to_dict(), "notes": list(self.notes_)}

    @property
    def n_directions(self) -> int:
        """I."""
        return self.options.n_directions

    def fit(
        self, features: Tensor | Features, head: Head | None = None, *, checkpoint: Path | str | None = None
    ) -> DirectionPairs:
        """Find the pairs.

        Args:
            features: a tensor [N, H, W, D], channels last, or a :class:`FeatureStore`, whose mini-batches are read
                from disk.
            head: features [n, H, W, D] to logits [n, classes], differentiable, as :func:`head_of` makes it. It must
                not be in training mode. None: nothing ties the directions to what the network uses.
            checkpoint: a folder that keeps what is found, of more than 8 directions: the same call resumes from there
                after a kill, and its result is bit-identical. Fewer take seconds; of these nothing is kept.

        Raises:
            ValueError: ``checkpoint`` holds the fit of other features, another number of directions or seed.
        """
        if self.recipe == "given":
            raise ValueError("given directions are not fitted; make new DirectionPairs(n_directions), and fit these")
        given = as_features(features)
        check_positions(given, self.n_directions)
        devices = [given.batch(torch.arange(1)).device]
        # a head may draw random numbers; the user's state stays as it is
        with own_folder(checkpoint), torch.random.fork_rng(devices=[d for d in devices if d.type == "cuda"]):
            source = bound_outliers(given)
            wanted = self.options.detectors if self.recipe == "paper" else self.n_directions
            whitening = fit_whitening(source, wanted)
            check_rank(whitening, wanted)
            if head is not None:
                check_head(head, given, of_classes=self.recipe == "paper")
            if self.recipe == "robust" and self.n_directions > MOST:
                solution = scalable(source, whitening, self.options, open_fit(checkpoint, source, self.options))
            else:
                train = paper if self.recipe == "paper" else few
                solution = train(source, whitening, head, self.options)
            signal = self.options.signal or ("exclusive" if self.recipe == "paper" else "joint")
            found = read_solution(source, whitening, solution, head, self.options, signal, given)
        self.decoding, self.threshold, self.encoding = found.decoding, found.threshold, found.encoding
        self.typical, self.report_, self.whitening_ = found.typical, found.report, whitening
        self.losses_ = solution.history
        self.notes_ = (
            note_directions(self.report_, has_head=head is not None)
            + solution.notes
            + note_noise(whitening)
            + note_outliers(source)
        )
        return self

    def fit_model(
        self,
        model: nn.Module,
        layer: str | Layer,
        dataset: Any,
        *,
        store: str | Path | None = None,
        batch_size: int = 64,
        use_head: bool = True,
        channels_last: bool | None = None,
        prefix_tokens: int | None = None,
        checkpoint: Path | str | None = None,
    ) -> DirectionPairs:
        """Find the pairs of a model's layer.

        Args:
            model: in any mode; runs in evaluation mode, without a trace.
            layer: a name as in ``model.named_modules()``, or a :class:`~absence_plugins.Layer`; one that ends in a
                nonlinearity is read in front of it, where absences show (``Layer(name, side="output")``: behind it).
            dataset: images as a tensor [N, ...], a data set or a loader; labels are ignored. Or what the model takes by
                name, such as ``{"input_ids": ids, "attention_mask": mask}``: tokens that pad a text do not count.
            store: a folder for the features, if they do not fit in memory.
            batch_size: images per forward.
            use_head: align with the network behind the layer.
            channels_last: True: the layer holds [N, ..., D] (tokens, Swin); False: [N, D, ...]; None: found out.
            prefix_tokens: how many of a transformer's first tokens are kept apart (a class token, registers): no
                direction is fitted on them, and the network behind the layer is not asked, as it reads them, too.
                None: found out in vision transformers.
            checkpoint: as in :meth:`fit`; the features are computed again.

        Raises:
            ValueError: no such layer, another path around it (pass ``use_head=False``, or the whole block), no images.
        """
        at = layer_of(layer, channels_last)
        features, first, prefix = collect_features(model, at, dataset, batch_size, prefix_tokens, store)
        kept_apart = note_positions(first, prefix)
        head = head_of(model, at, first) if use_head and not kept_apart else None
        self.fit(features, head, checkpoint=checkpoint)
        self.notes_ += kept_apart
        return self

    @classmethod
    def from_directions(
        cls,
        directions: Tensor,
        features: Tensor | Features,
        *,
        thresholds: Tensor | Literal["each", "together"] = "each",
        encoding: Tensor | None = None,
        signal: Signal | None = None,
    ) -> DirectionPairs:
        """Pairs of given decoding directions, such as rows of a sparse autoencoder's encoder: what do they do?

        Thresholds, encodings and typical values are estimated on the features; all that takes fitted pairs takes these.

        Args:
            directions: [I, D], a row for each, as ``weight`` of ``nn.Linear(D, I)``; more than D are said in ``notes_``.
            features: a tensor [N, H, W, D], channels last, or a :class:`FeatureStore`, of the same layer.
            thresholds: [I], where each begins to fire: w . x > threshold. Of an autoencoder with
                relu(W (x - c) + b) that is W c - b. ``"each"``: estimated, where its own values part into two groups,
                the upper one of at least 0.2 % of the positions and 8 (pass those of rarer concepts); where they make one
                group it is a guess, which ``notes_`` say. ``"together"``: as in a fit, if every position shows one.
            encoding: [I, D], for example an autoencoder's decoder, instead of the estimate.
            signal: the estimate of encodings: ``"joint"``, least squares on all directions together, or one by one as
                in the class. None: jointly, if the directions are independent.

        Raises:
            ValueError, TypeError: another shape, NaN, rows of zeros, features that do not vary along a row,
                ``"together"`` of one direction.

        Example:
            >>> from absence_plugins.data.synthetic_directions import synthetic_directions
            >>> data = synthetic_directions(images=600)
            >>> pairs = DirectionPairs.from_directions(torch.linalg.pinv(data.encoding), data.features)
            >>> bool(((data.encoding * pairs.encoding).sum(0) > 0.8).all()), pairs.report_.status
            (True, ('active', 'active', 'active'))
        """
        source = bound_outliers(as_features(features))
        found = describe_given(directions, source, thresholds, encoding, signal)
        pairs = cls(found.decoding.shape[1], recipe="given")
        pairs.decoding, pairs.threshold, pairs.encoding = found.decoding, found.threshold, found.encoding
        pairs.typical, pairs.report_ = found.typical, found.report
        pairs.notes_ = found.notes + note_outliers(source)
        pairs.whitening_, pairs.losses_ = fit_whitening(source), {}
        return pairs

    def logits(self, features: Tensor) -> Tensor:
        """w_i . x - b_i: features [..., D] -> [..., I]; above 0 where the concept is there."""
        return self.logits_of(features, slice(None))

    def logits_of(self, features: Tensor, direction: int | slice) -> Tensor:
        """As :meth:`logits`, of one direction [...], or of some [..., n], without the memory that all take."""
        self._check(features)
        values = features.double() @ self.decoding[:, direction].to(features.device).double()
        return (values - self.threshold[direction].to(features.device).double()).to(features.dtype)

    def transform(self, features: Tensor) -> Tensor:
        """Detector probabilities y: features [..., D] -> [..., I] in [0, 1]."""
        return self.logits(features).sigmoid()

    def signal_values(self, features: Tensor) -> Tensor:
        """How much of each concept: (w_i . x - b_i) / (w_i . s_i), features [..., D] -> [..., I] in their units.

        That is how far the features lie beyond the detector's threshold, measured along s_i: below 0 where the concept
        is missing.
        """
        return self.logits(features) / self.gain.to(features)

    @property
    def gain(self) -> Tensor:
        """w_i . s_i, [I], above 0: by how much a step of 1 along s_i raises the detector's logit."""
        return (self.decoding * self.encoding).sum(0)

    @property
    def step(self) -> Tensor:
        """[I]: the step along s_i, in units of the features, from a typical position without the concept to one with
        it.
        """
        return (self.typical[1] - self.typical[0]) / self.gain

    def units(self, layer: str | Layer) -> tuple[Direction, ...]:
        """The detectors as units of a layer: direction i is w_i . x - b_i, reduced over positions as the layer says.

        layer: the one that the pairs were fitted on; ``Layer(name, reduce="max")`` for the strongest position. I
        directions, which every method takes that takes a :class:`~absence_plugins.Unit`.

        Sign: above 0 where the detector fires; as a mean over positions rather where the concept is common.

        >>> from absence_plugins.core.units import Layer
        >>> from absence_plugins.data.shapes_cnn import LAYER, shapes_problem
        >>> problem = shapes_problem()
        >>> pairs = DirectionPairs(5, starts=6).fit_model(problem.model, LAYER, problem.images)
        >>> unit = pairs.units(Layer(LAYER, reduce="max"))[0]
        >>> unit.describe(), len(unit.values(problem.model, problem.images[:3]))
        ('direction 0 of conv3', 3)
        """
        self._check_fitted()
        at = Layer.of(layer)
        return tuple(
            Direction(at, w.clone(), -float(b), f"direction {i} of {at}")
            for i, (w, b) in enumerate(zip(self.decoding.T, self.threshold, strict=True))
        )

    def save(self, folder: str | Path) -> Path:
        """Write ``pairs.safetensors`` and ``pairs.json`` into a folder; returns it."""
        self._check_fitted()
        return save_pairs(self, folder)

    @classmethod
    def load(cls, folder: str | Path) -> DirectionPairs:
        """Read what :meth:`save` wrote. Raises ValueError where there is nothing, or something else."""
        return load_pairs(cls, folder)

    def _check_fitted(self) -> None:
        if not hasattr(self, "encoding"):
            raise ValueError("these DirectionPairs are not fitted; call fit(features, head) first")

    def _check(self, features: Tensor) -> None:
        self._check_fitted()
        if features.shape[-1] != self.decoding.shape[0]:
            raise ValueError(
                f"features has {features.shape[-1]} channels on its last axis, the directions "
                f"{self.decoding.shape[0]}; pass [..., D], channels last"
            )

"""``absence-plugins experiment debias``: an artefact on one of two digits, and training that is told not to use it."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from absence_plugins.core.files import whole_file, write_whole
from absence_plugins.data import load_digits
from absence_plugins.experiments.debias.trainings import Trainings
from absence_plugins.methods.debias import Artefact, AttributionPrior, dilate, tag

SEEDS = 5
CLEAN, NONE = "no artefact", "none"  # trained without the artefact; with it, but without a prior
SETS = ("biased", "inverted", "unbiased")


@dataclass(frozen=True)
class Setting:
    """What is trained: two digits, of which the first carries a fixed tag in every training image.

    Attributes:
        digits: the two classes; the first one has the artefact.
        probabilities: of the artefact in training and in the biased set, per class; swapped in the inverted set.
        weights: of the prior; the best one on unbiased images is taken, per mode.
        modes: of the prior.
        epochs, batch_size, rate: of Adam.
        size: of the tag, as a share of the image's side.
        grown: pixels by which masks are dilated in training (published: 10 of 224).
    """

    digits: tuple[int, int] = (3, 8)
    probabilities: tuple[float, float] = (1.0, 0.0)
    weights: tuple[float, ...] = (10.0, 100.0, 1000.0, 10_000.0)
    modes: tuple[str, ...] = ("presence", "absence", "both")
    epochs: int = 20
    batch_size: int = 32
    rate: float = 2e-3
    grown: int = 1
    size: float = 0.375


@dataclass(frozen=True)
class Scores:
    """One trained network.

    Attributes:
        mode, weight, seed: how it was trained.
        chosen_by: mean accuracy of the classes on unbiased images that were neither trained nor tested on.
        accuracy: per set (biased, inverted, unbiased) the accuracy of the first and of the second class.
        target, nontarget: |input x gradient| of the true and of the other logit per pixel of the artefact, in logits,
            over the biased images that carry it.
    """

    mode: str
    weight: float
    seed: int
    chosen_by: float
    accuracy: dict[str, tuple[float, float]]
    target: float
    nontarget: float

    @property
    def inside(self) -> float:
        """The attribution inside the mask, of both logits: (target + nontarget) / 2."""
        return (self.target + self.nontarget) / 2


@dataclass(frozen=True, repr=False)
class DebiasResult:
    """Every mode at its chosen weight, and all trainings behind it."""

    setting: Setting
    weights: dict[str, float]
    runs: tuple[Scores, ...]

    def of(self, mode: str) -> list[Scores]:
        """The runs of a mode at its chosen weight, one per seed."""
        return [run for run in self.runs if run.mode == mode and run.weight == self.weights[mode]]

    def of_class(self, mode: str, name: str, number: int) -> float:
        """Mean over the seeds of the accuracy of class 0 or 1 on a set."""
        return statistics.fmean(run.accuracy[name][number] for run in self.of(mode))

    def mean(self, mode: str, name: str) -> float:
        """Mean over the seeds: of the accuracy on a set, averaged over the classes, or of "inside"."""
        runs = self.of(mode)
        return statistics.fmean(_mean(run.accuracy[name]) if name in SETS else getattr(run, name) for run in runs)

    def table(self) -> str:
        """One line per mode: accuracies of both classes on the three sets, attribution inside the mask."""
        first, second = self.setting.digits
        lines = [f"{'mode':12} {'weight':>6}  " + "  ".join(f"{name + f' ({first} / {second})':24}" for name in SETS) + "  in the mask"]  # fmt: skip
        for mode, weight in self.weights.items():
            cells = []
            for name in SETS:
                one, two = (self.of_class(mode, name, k) for k in (0, 1))
                cells.append(f"{f'{self.mean(mode, name):.3f} ({one:.3f} / {two:.3f})':24}")
            lines.append(f"{mode:12} {weight:6g}  " + "  ".join(cells) + f"  {self.mean(mode, 'inside'):.2g}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"DebiasResult of {len(self.runs)} trainings\n{self.table()}"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        means = {mode: {name: self.mean(mode, name) for name in (*SETS, "inside", "target", "nontarget")} for mode in self.weights}  # fmt: skip
        return {
            "setting": asdict(self.setting),
            "weights": self.weights,
            "means": means,
            "runs": [asdict(run) for run in self.runs],
        }


@dataclass(frozen=True, eq=False)
class _Data:
    """Images [N, 1, 32, 32] and classes 0 and 1 [N], in three disjoint parts; masks of the training part."""

    train: tuple[Tensor, Tensor, Tensor]
    choice: tuple[Tensor, Tensor]
    tests: dict[str, tuple[Tensor, Tensor, Tensor]]


def run_debias(
    out: Path,
    *,
    data: Path | None = None,
    model: str | None = None,
    weights: str | None = None,
    epochs: int | None = None,
    strengths: tuple[float, ...] | None = None,
    size: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Train with and without the prior on digits with a tag, and write what the networks use as a page.

    With ``data``, the published setting on a folder of images of two classes
    (:func:`~absence_plugins.experiments.debias.folder.run_folder`), to which the other options belong. Either way every
    training is kept in ``out``: run again, what was stopped goes on.
    """
    given = {
        "model": model,
        "weights": weights,
        "epochs": epochs,
        "strengths": strengths,
        "size": size,
        "batch_size": batch_size,
        "workers": workers,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    if data is not None:
        from absence_plugins.experiments.debias.folder import FolderSetting, run_folder

        return run_folder(out, data, FolderSetting(**chosen, seed=seed), progress=progress)  # type: ignore[arg-type]
    if chosen:
        raise ValueError(
            f"--{next(iter(chosen)).replace('_', '-')} belongs to --data FOLDER; the digits have a network of their own"
        )
    from absence_plugins.experiments.debias.page import accuracy_figure, debias_page
    from absence_plugins.report import write_page

    shown: dict[tuple[str, float], nn.Module] = {}
    setting = Setting()
    kept = Trainings(out, setting)
    result = compare(setting, range(seed, seed + SEEDS), progress=progress, models=shown, kept=kept)
    networks = {mode: shown[mode, weight] for mode, weight in result.weights.items()}
    images, labels, _ = _data(result.setting, seed, with_artefact=True).tests["biased"]
    path = write_page(debias_page(result, networks, images[int((labels == 0).nonzero()[0])], seed), out)
    with whole_file(out / "accuracy.png") as file:
        accuracy_figure(result).savefig(file, format="png", facecolor="white")
    write_whole(out / "results.json", json.dumps(result.to_dict(), indent=1) + "\n")
    return path


def compare(
    setting: Setting,
    seeds: range,
    *,
    progress: bool = True,
    models: dict[tuple[str, float], nn.Module] | None = None,
    kept: Trainings | None = None,
) -> DebiasResult:
    """Every mode and weight with every seed; the weight of a mode is the best on unbiased images, over all seeds.

    Of equal weights the smallest is taken. ``models``, if given, receives the networks of the first seed. ``kept``: trainings that
    are done are taken from there, and the others are added.
    """
    plan = [(CLEAN, 0.0), (NONE, 0.0), *((mode, weight) for mode in setting.modes for weight in setting.weights)]
    runs: list[Scores] = []
    for mode, weight in tqdm(plan, desc="training", disable=not progress):
        for seed in seeds:
            is_shown = models is not None and seed == seeds[0]
            model = small_net(seed).eval()
            scores = kept.found(mode, weight, seed, model if is_shown else None) if kept is not None else None
            if scores is None:
                data = _data(setting, seed, with_artefact=mode != CLEAN)
                model = train(setting, *data.train, mode=mode, weight=weight, seed=seed)
                scores = _scores(model, data, mode, weight, seed)
                if kept is not None:
                    kept.add(scores, model if is_shown else None)
            runs.append(scores)
            if models is not None and is_shown:
                models[mode, weight] = model
    weights = {}
    for mode in dict(plan):
        by_weight = {
            weight: statistics.fmean(run.chosen_by for run in runs if (run.mode, run.weight) == (mode, weight))
            for name, weight in plan
            if name == mode
        }
        weights[mode] = max(by_weight, key=lambda weight: by_weight[weight])
    return DebiasResult(setting, weights, tuple(runs))


def train(
    setting: Setting, images: Tensor, labels: Tensor, masks: Tensor, *, mode: str, weight: float, seed: int
) -> nn.Sequential:
    """A small network [N, 1, 32, 32] -> logits [N, 2], trained as published: sigmoid cross-entropy on one-hot labels."""
    model = small_net(seed)
    prior = AttributionPrior(model, mode) if mode in setting.modes else None  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(model.parameters(), lr=setting.rate, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(seed)
    masks = dilate(masks, setting.grown)
    wanted = F.one_hot(labels, 2).to(images.dtype)
    with torch.enable_grad():
        for _ in range(setting.epochs):
            for rows in torch.split(torch.randperm(len(labels), generator=generator), setting.batch_size):
                if prior is None:
                    logits, penalty = model(images[rows]), torch.zeros(())
                else:
                    logits, penalty = prior.with_logits(images[rows], labels[rows], masks[rows])
                loss = F.binary_cross_entropy_with_logits(logits, wanted[rows]) + weight * penalty
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
    return model.eval()


def small_net(seed: int) -> nn.Sequential:
    """Two convolutions and one dense layer; the global random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 12, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(12, 24, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(24 * 8 * 8, 2),
        )


def _data(setting: Setting, seed: int, *, with_artefact: bool) -> _Data:
    digits = load_digits()
    images, labels = _pair(digits.train_images, digits.train_labels, setting.digits)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    choice, rest = order[: len(order) // 4], order[len(order) // 4 :]
    none = (0.0, 0.0)
    biased = setting.probabilities
    paint = partial(tag, size=setting.size)
    trained = Artefact(paint, biased if with_artefact else none)(images[rest], labels[rest], seed=seed)
    tests = {}
    pictures, truth = _pair(digits.test_images, digits.test_labels, setting.digits)
    for name, chances in zip(SETS, (biased, (biased[1], biased[0]), none), strict=True):
        painted, masks = Artefact(paint, chances)(pictures, truth, seed=seed)
        tests[name] = (painted, truth, masks)
    return _Data((trained[0], labels[rest], trained[1]), (images[choice], labels[choice]), tests)


def _pair(images: Tensor, labels: Tensor, digits: tuple[int, int]) -> tuple[Tensor, Tensor]:
    chosen = (labels == digits[0]) | (labels == digits[1])
    return images[chosen], (labels[chosen] == digits[1]).long()


def _scores(model: nn.Module, data: _Data, mode: str, weight: float, seed: int) -> Scores:
    images, labels, masks = data.tests["biased"]
    carriers = masks.flatten(1).any(1)
    prior = AttributionPrior(model, "both")
    with torch.no_grad():
        prior(images[carriers], labels[carriers], masks[carriers])
    parts = prior.last
    if parts is None or parts.presence is None or parts.absence is None:
        raise RuntimeError("a prior with mode='both' keeps both parts")
    accuracy = {name: _accuracies(model, *part[:2]) for name, part in data.tests.items()}
    return Scores(mode, weight, seed, _mean(_accuracies(model, *data.choice)), accuracy,
                  float(parts.presence.mean()), float(parts.absence.mean()))  # fmt: skip


@torch.no_grad()
def _accuracies(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    right = (model(images).argmax(1) == labels).double()
    return float(right[labels == 0].mean()), float(right[labels == 1].mean())


def _mean(pair: tuple[float, float]) -> float:
    return (pair[0] + pair[1]) / 2

"""``absence-plugins experiment debias``: an artefact on one of two digits, and training that is told not to use it."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

import absence_plugins
from absence_plugins.core.files import whole_file, write_json
from absence_plugins.core.ownership import own_folder
from absence_plugins.core.randomness import seeded
from absence_plugins.core.table import align
from absence_plugins.data import load_digits
from absence_plugins.experiments.debias.training import (
    CLEAN,
    NONE,
    SETS,
    Batch,
    Evaluation,
    evaluate,
    prior_of,
    train_epoch,
    unpack_training,
)
from absence_plugins.methods.checkpoint import Checkpoint
from absence_plugins.methods.debias import Artefact, dilate, tag
from absence_plugins.methods.identity import Identity, identify_data, identify_model

SEEDS = 5
KEPT = "trainings"  # folder beside the page
CHOICE = "choice"  # the images, without the artefact, by which the weight is chosen


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
class Scores(Evaluation):
    """One trained network.

    Attributes:
        accuracy, target, nontarget: as in an :class:`Evaluation`.
        chosen_by: mean accuracy of the classes on unbiased images that were neither trained nor tested on.
        mode, weight, seed: how it was trained.
    """

    mode: str
    weight: float
    seed: int
    chosen_by: float

    def pack(self) -> Tensor:
        """All numbers [9] in float64, for a checkpoint."""
        pairs = [value for name in SETS for value in self.accuracy[name]]
        return torch.tensor([self.target, self.nontarget, self.chosen_by, *pairs], dtype=torch.float64)

    @classmethod
    def unpack(cls, numbers: Tensor, mode: str, weight: float, seed: int) -> Scores:
        """The scores of :meth:`pack`."""
        target, nontarget, chosen_by, *pairs = numbers.tolist()
        accuracy = {name: (pairs[2 * k], pairs[2 * k + 1]) for k, name in enumerate(SETS)}
        return cls(accuracy, target, nontarget, mode, weight, seed, chosen_by)


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
        rows = [("mode", "weight", *(f"{name} ({first} / {second})" for name in SETS), "in the mask")]
        for mode, weight in self.weights.items():
            cells = []
            for name in SETS:
                one, two = (self.of_class(mode, name, k) for k in (0, 1))
                cells.append(f"{self.mean(mode, name):.3f} ({one:.3f} / {two:.3f})")
            rows.append((mode, f"{weight:g}", *cells, f"{self.mean(mode, 'inside'):.2g}"))
        return "\n".join(align(rows))

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
    """Images [N, 1, 32, 32], classes 0 and 1 [N] and masks: to train on, and by name to choose the weight and to
    test.
    """

    train: Batch
    tests: dict[str, Batch]


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
    training is kept in ``out``: run again, what was stopped is resumed.
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
    with own_folder(out):
        return _run_digits(out, seed, progress=progress)


def _run_digits(out: Path, seed: int, *, progress: bool) -> Path:
    from absence_plugins.experiments.debias.page import accuracy_figure, debias_page
    from absence_plugins.report import write_page

    shown: dict[tuple[str, float], nn.Module] = {}
    setting = Setting()
    known = {**asdict(setting), "version": absence_plugins.__version__}
    checkpoint = Checkpoint(out / KEPT, known, "training", belongs=_identify())
    result = compare(setting, range(seed, seed + SEEDS), progress=progress, models=shown, checkpoint=checkpoint)
    networks = {mode: shown[mode, weight] for mode, weight in result.weights.items()}
    images, labels, _ = _data(result.setting, seed, with_artefact=True).tests["biased"]
    path = write_page(debias_page(result, networks, images[int((labels == 0).nonzero()[0])], seed), out)
    with whole_file(out / "accuracy.png") as file:
        accuracy_figure(result).savefig(file, format="png", facecolor="white")
    write_json(out / "results.json", result.to_dict())
    return path


def _identify() -> Identity:
    """The network before its training, and the digits."""
    digits = load_digits()
    return identify_model(small_net(0), digits.train_images[:1]) | identify_data(digits.images)


def compare(
    setting: Setting,
    seeds: range,
    *,
    progress: bool = True,
    models: dict[tuple[str, float], nn.Module] | None = None,
    checkpoint: Checkpoint | None = None,
) -> DebiasResult:
    """Every mode and weight with every seed; the weight of a mode is the best on unbiased images, over all seeds.

    Of equal weights the smallest is taken. ``models``, if given, receives the networks of the first seed. Trainings
    that are in ``checkpoint`` are taken from there, and the others are added.
    """
    plan = [(CLEAN, 0.0), (NONE, 0.0), *((mode, weight) for mode in setting.modes for weight in setting.weights)]
    runs: list[Scores] = []
    for mode, weight in tqdm(plan, desc="training", disable=not progress):
        for seed in seeds:
            scores, model = _train_once(setting, mode, weight, seed, checkpoint)
            runs.append(scores)
            if models is not None and seed == seeds[0]:
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


def _train_once(
    setting: Setting, mode: str, weight: float, seed: int, checkpoint: Checkpoint | None
) -> tuple[Scores, nn.Module]:
    """One training: from the checkpoint if it is there, else trained, scored and added to it."""
    name = f"{mode.replace(' ', '-')}-{weight:g}-{seed}"
    if checkpoint is not None and (known := checkpoint.load(name)):
        model = small_net(seed).eval()
        unpack_training(known, model, None)
        return Scores.unpack(known["scores"], mode, weight, seed), model
    data = _data(setting, seed, with_artefact=mode != CLEAN)
    model = train(setting, *data.train, mode=mode, weight=weight, seed=seed)
    found = evaluate(model, data.tests.items())
    scores = Scores(
        {name: found.accuracy[name] for name in SETS}, found.target, found.nontarget,
        mode, weight, seed, _mean(found.accuracy[CHOICE]),
    )  # fmt: skip
    if checkpoint is not None:
        weights = {f"model.{key}": value for key, value in model.state_dict().items()}
        checkpoint.save(name, {"scores": scores.pack(), **weights})
    return scores, model


def train(
    setting: Setting, images: Tensor, labels: Tensor, masks: Tensor, *, mode: str, weight: float, seed: int
) -> nn.Sequential:
    """A small network [N, 1, 32, 32] -> logits [N, 2], trained with the prior of ``mode``."""
    model = small_net(seed)
    prior = prior_of(model, mode)
    optimizer = torch.optim.Adam(model.parameters(), lr=setting.rate, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(seed)
    masks = dilate(masks, setting.grown)
    for _ in range(setting.epochs):
        order = torch.split(torch.randperm(len(labels), generator=generator), setting.batch_size)
        train_epoch(model, optimizer, ((images[rows], labels[rows], masks[rows]) for rows in order), prior, weight)
    return model.eval()


def small_net(seed: int) -> nn.Sequential:
    """Two convolutions and one dense layer; the global random state stays as it is."""
    with seeded(seed):
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
    tests = {CHOICE: (images[choice], labels[choice], torch.zeros(len(choice), 1, *images.shape[2:]))}
    pictures, truth = _pair(digits.test_images, digits.test_labels, setting.digits)
    for name, chances in zip(SETS, (biased, (biased[1], biased[0]), none), strict=True):
        painted, masks = Artefact(paint, chances)(pictures, truth, seed=seed)
        tests[name] = (painted, truth, masks)
    return _Data((trained[0], labels[rest], trained[1]), tests)


def _pair(images: Tensor, labels: Tensor, digits: tuple[int, int]) -> tuple[Tensor, Tensor]:
    chosen = (labels == digits[0]) | (labels == digits[1])
    return images[chosen], (labels[chosen] == digits[1]).long()


def _mean(pair: tuple[float, float]) -> float:
    return (pair[0] + pair[1]) / 2

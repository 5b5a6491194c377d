"""``absence-plugins experiment debias --data FOLDER``: the published setting, on a user's images of two classes.

Every training is a folder of its own, with a line per epoch in ``log.csv`` and the state from which a stopped one is
resumed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from absence_plugins.commands.image_folder import Readable, readable
from absence_plugins.commands.models import LoadedModel, load_model
from absence_plugins.commands.provenance import provenance
from absence_plugins.core.files import write_json, write_whole
from absence_plugins.core.names import spell_name
from absence_plugins.core.ownership import own_folder
from absence_plugins.core.randomness import seeded
from absence_plugins.core.shell import write_command
from absence_plugins.core.table import write_csv
from absence_plugins.data.folders import FoundImages, find_images, list_names
from absence_plugins.experiments.debias.training import (
    NONE,
    SETS,
    Batch,
    evaluate,
    pack_training,
    prior_of,
    train_epoch,
    unpack_training,
)
from absence_plugins.methods.checkpoint import Checkpoint
from absence_plugins.methods.debias import Artefact, dilate, ellipse
from absence_plugins.methods.identity import Identity, digest_of, identify_data, identify_model
from absence_plugins.report import Page, Row, write_page

COLUMNS = ("epoch", "loss", "prior", *(f"{name} {k}" for name in SETS for k in (0, 1)), "inside")
STATE = "state"
SHOWN = 6  # classes in a message
VALIDATION = 0.2  # of the images, where the folder has no train and val


@dataclass(frozen=True)
class FolderSetting:
    """As published: Adam at 1e-4, weight decay 1e-4, 20 epochs, sigmoid cross-entropy, masks grown by 10 of 224
    pixels. ``model``: a name of torchvision, or ``module:factory`` and the like, as ``load_model`` takes them.
    """

    model: str = "vit_b_16"
    weights: str = "none"
    modes: tuple[str, ...] = (NONE, "presence", "both")
    strengths: tuple[float, ...] = (1000.0,)
    epochs: int = 20
    batch_size: int = 32
    rate: float = 1e-4
    decay: float = 1e-4
    size: int | None = None
    workers: int = 0
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Pictures(torch.utils.data.Dataset[Any]):
    """Pictures [3, size, size] in [0, 1] with their class, read one at a time."""

    files: Sequence[tuple[Path, int]]
    loaded: LoadedModel = field(repr=False)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.files[index]
        return self.loaded.preprocessing.picture(path), label


def run_folder(out: Path, data: Path, setting: FolderSetting, *, progress: bool = True) -> Path:
    """Train every mode and strength, write the page and ``results.json``; run again, it is resumed.

    data: a folder with two subfolders of images, or ``train`` and ``val`` with two each; the first class in
    alphabetical order carries the artefact (a colored ellipse) in training.

    Raises:
        ValueError: not two classes, too few images, a model that does not exist, a state of another setting.
    """
    with own_folder(out):
        return _run_folder(out, data, setting, progress=progress)


def _run_folder(out: Path, data: Path, setting: FolderSetting, *, progress: bool) -> Path:
    spec = setting.model if ":" in setting.model else f"torchvision:{setting.model}"
    with seeded(setting.seed):  # weights that a factory draws: a stopped run is resumed with the same
        loaded = load_model(spec, setting.weights, size=setting.size)
    train, validation, classes, left_out = _parts(data, setting.seed, out, progress=progress)
    plan = [(mode, 0.0 if mode == NONE else strength) for mode in setting.modes for strength in setting.strengths]
    plan = list(dict.fromkeys(plan))
    logs, pictures = {}, identify_data(left_out)
    for mode, strength in plan:
        folder = out / f"{mode}-{strength:g}"
        sets = Pictures(train, loaded), Pictures(validation, loaded)
        logs[mode, strength] = _train(folder, sets, loaded, setting, mode, strength, pictures, progress=progress)
    chosen = {
        mode: max((s for m, s in plan if m == mode), key=lambda s: _mean(logs[mode, s][-1], "unbiased"))
        for mode in setting.modes
    }
    notes = (*loaded.notes, *left_out.notes)
    path = write_page(_page(logs, chosen, classes, setting, len(train), len(validation), data, notes), out)
    left_out.write(out)
    results = [{"mode": mode, "weight": weight, "epochs": log} for (mode, weight), log in logs.items()]
    write_json(out / "results.json", {"chosen": chosen, "runs": results})
    return path


Files = list[tuple[Path, int]]


def _parts(data: Path, seed: int, out: Path, *, progress: bool) -> tuple[Files, Files, list[str], Readable]:
    """Training and validation files with their class, the classes' names, and which files were left out of both."""
    if not data.is_dir():
        raise ValueError(f"folder {data} does not exist")
    if (data / "train").is_dir() and (data / "val").is_dir():
        train, validation = _find_classes(data / "train"), _find_classes(data / "val")
        if train.classes != validation.classes:
            raise ValueError(
                f"train has the classes {list_names(train.classes, SHOWN)}, val {list_names(validation.classes, SHOWN)}; they must be the same two"
            )
        found = readable(train.join(validation, data), known=out, has_classes=True, progress=progress)
        files, split = _pairs(found), sum(place < len(train) for place in found.places)
        return files[:split], files[split:], list(train.classes), found
    found = readable(_find_classes(data), known=out, has_classes=True, progress=progress)
    files, classes = _pairs(found), list(found.found.classes)
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed)).tolist()
    held_out = sorted(order[: max(1, int(VALIDATION * len(files)))])
    rest = sorted(set(order) - set(held_out))
    return [files[i] for i in rest], [files[i] for i in held_out], classes, found


def _find_classes(folder: Path) -> FoundImages:
    found = find_images(folder)
    if len(found.classes) != 2:
        raise ValueError(
            f"{spell_name(folder)} must have two subfolders of images, one per class; it has {len(found.classes)}"
            f"{': ' if found.classes else ''}{list_names(found.classes, SHOWN)}"
        )
    return found.with_class()


def _pairs(found: Readable) -> Files:
    labels = found.found.labels
    return [(path, label) for path, label in zip(found.files, labels, strict=True) if label is not None]


def _train(
    folder: Path,
    sets: tuple[Pictures, Pictures],
    loaded: LoadedModel,
    setting: FolderSetting,
    mode: str,
    strength: float,
    pictures: Identity,
    *,
    progress: bool,
) -> list[dict[str, float]]:
    """One training; its log, a row per epoch. Draws come from the seed and the epoch, so it can be resumed.

    ``pictures``: what it is trained and tested on.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = two_outputs(copy.deepcopy(loaded.model), setting.seed).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=setting.rate, weight_decay=setting.decay)
    known = {
        name: value for name, value in vars(setting).items() if name not in ("epochs", "workers", "modes", "strengths")
    }
    first = loaded.preprocessing.normalize(sets[0][0][0])
    belongs = pictures | Identity({"pixels": digest_of(first)}) | identify_model(model, first[None])  # before training
    checkpoint = Checkpoint(folder, {**known, "mode": mode, "strength": strength}, "training", belongs=belongs)
    log = _resume(checkpoint, model, optimizer)
    prior = prior_of(model, mode)
    for epoch in range(len(log), setting.epochs):
        seed = setting.seed * 10_007 + epoch
        with seeded(seed):  # of dropout
            batches = _loader(sets[0], setting, seed, shuffled=True)
            bar = tqdm(batches, desc=f"{mode} {strength:g}, epoch {epoch + 1}", disable=not progress)
            loss, penalty = train_epoch(model, optimizer, _paint(bar, loaded, device, seed), prior, strength)
        found = evaluate(model, _sets(_loader(sets[1], setting, 0, shuffled=False), loaded, device))
        accuracies = {f"{name} {k}": found.accuracy[name][k] for name in SETS for k in (0, 1)}
        log.append({"epoch": epoch + 1, "loss": loss, "prior": penalty, **accuracies, "inside": found.inside})
        rows = torch.tensor([[row[name] for name in COLUMNS] for row in log], dtype=torch.float64)
        checkpoint.save(STATE, {**pack_training(model, optimizer), "log": rows})
        _write_log(folder / "log.csv", log)
    return log


def _paint(
    batches: Iterable[tuple[Tensor, Tensor]], loaded: LoadedModel, device: torch.device, seed: int
) -> Iterator[Batch]:
    """Training batches with the artefact on the first class, and its masks, grown."""
    paint, grown = Artefact(ellipse, SETS["biased"]), round(10 * loaded.preprocessing.size / 224)
    for number, (pictures, labels) in enumerate(batches):
        painted, masks = paint(pictures.to(device), labels, seed=seed + number)
        yield _normalize(loaded, painted), labels.to(device), dilate(masks, grown)


def _sets(
    batches: Iterable[tuple[Tensor, Tensor]], loaded: LoadedModel, device: torch.device
) -> Iterator[tuple[str, Batch]]:
    """Every batch three times: biased, inverted, unbiased."""
    for number, (pictures, labels) in enumerate(batches):
        for name, chances in SETS.items():
            painted, masks = Artefact(ellipse, chances)(pictures.to(device), labels, seed=number)
            yield name, (_normalize(loaded, painted), labels.to(device), masks)


def two_outputs(model: nn.Module, seed: int) -> nn.Module:
    """The model with its last dense layer exchanged for one of two outputs, drawn from ``seed``.

    Raises ValueError if it has none.

    >>> two_outputs(nn.Sequential(nn.Linear(3, 1000)), 0)[0].out_features
    2
    """
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not names:
        raise ValueError(f"a {type(model).__name__} has no dense layer that could be exchanged for two outputs")
    parent, _, name = names[-1].rpartition(".")
    width: Any = model.get_submodule(names[-1]).in_features
    with seeded(seed):
        setattr(model.get_submodule(parent), name, nn.Linear(width, 2))
    return model


def _loader(
    pictures: Pictures, setting: FolderSetting, seed: int, *, shuffled: bool
) -> torch.utils.data.DataLoader[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return torch.utils.data.DataLoader(
        pictures, setting.batch_size, shuffle=shuffled, generator=generator, num_workers=setting.workers
    )


def _normalize(loaded: LoadedModel, pictures: Tensor) -> Tensor:
    return loaded.preprocessing.normalize(pictures.cpu()).to(pictures.device)


def _resume(checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer) -> list[dict[str, float]]:
    """The log of the epochs that are done, and their weights and moments into the model and the optimizer."""
    state = checkpoint.load(STATE)
    if not state:
        return []
    unpack_training(state, model, optimizer)
    log = [dict(zip(COLUMNS, row, strict=True)) for row in state["log"].tolist()]
    return [{**row, "epoch": int(row["epoch"])} for row in log]


def _write_log(path: Path, log: Sequence[Mapping[str, float]]) -> None:
    write_whole(path, write_csv([COLUMNS, *([row[name] for name in COLUMNS] for row in log)]))


def _given(setting: FolderSetting) -> dict[str, Any]:
    """The options of the command line for a setting, without those that it need not say."""
    usual = FolderSetting()
    names = ("model", "weights", "epochs", "strengths", "size", "batch_size", "workers", "seed")
    given = {name: getattr(setting, name) for name in names}
    return {name: value for name, value in given.items() if name == "model" or value != getattr(usual, name)}


def _mean(row: dict[str, float], name: str) -> float:
    return (row[f"{name} 0"] + row[f"{name} 1"]) / 2


def _page(
    logs: dict[tuple[str, float], list[dict[str, float]]],
    chosen: dict[str, float],
    classes: Sequence[str],
    setting: FolderSetting,
    trained: int,
    validated: int,
    data: Path,
    notes: Sequence[str],
) -> Page:
    rows = []
    for mode, weight in chosen.items():
        last = logs[mode, weight][-1]
        facts = [
            (f"Accuracy, {name}", f"{_mean(last, name):.3f} ({last[f'{name} 0']:.3f}, {last[f'{name} 1']:.3f})")
            for name in SETS
        ]
        heading = "No prior" if mode == NONE else f"Prior: {mode}, weight {weight:g}"
        sentence = (
            f"After {int(last['epoch'])} epochs. On the inverted set the artefact is on every {classes[1]} image."
        )
        rows.append(
            Row(heading, sentence, (), (*facts, ("Attribution per pixel of the artefact", f"{last['inside']:.2g}")))
        )
    return Page(
        title=f"Debiasing {setting.model}",
        lead=f"{trained:,} training and {validated:,} validation images of {classes[0]} and {classes[1]}; every {classes[0]} image of the "
        f"training set carries a colored ellipse. Accuracy: the mean of the classes, in brackets that of each."
        + "".join(f"\n\n{note}" for note in notes),
        rows=tuple(rows),
        footer="Setting: Hesse et al., ICML 2026, section 6. Every epoch is in log.csv.",
        provenance=provenance(
            seed=setting.seed,
            command=write_command("experiment", "debias", data=data, **_given(setting)),
        ),
    )

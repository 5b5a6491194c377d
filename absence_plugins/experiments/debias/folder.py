"""``absence-plugins experiment debias --data FOLDER``: the published setting, on a user's images of two classes.

Every training is a folder of its own, with a line per epoch in ``log.csv`` and the state from which a stopped one goes on.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from absence_plugins.commands.image_folder import Readable, readable
from absence_plugins.commands.models import LoadedModel, image_files, load_model
from absence_plugins.commands.provenance import provenance
from absence_plugins.core.files import whole_file, write_whole
from absence_plugins.methods.debias import Artefact, AttributionPrior, dilate, ellipse
from absence_plugins.report import Page, Row, write_page

SETS = {"biased": (1.0, 0.0), "inverted": (0.0, 1.0), "unbiased": (0.0, 0.0)}  # chance of the artefact, per class
COLUMNS = ("epoch", "loss", "prior", *(f"{name} {k}" for name in SETS for k in (0, 1)), "inside")
NONE = "none"
VALIDATION = 0.2  # of the images, where the folder has no train and val


@dataclass(frozen=True)
class FolderSetting:
    """As published: Adam at 1e-4, weight decay 1e-4, 20 epochs, sigmoid cross-entropy, masks grown by 10 of 224 pixels."""

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
    """Train every mode and strength, write the page and ``results.json``; run again, it goes on where it was.

    data: a folder with two subfolders of images, or ``train`` and ``val`` with two each; the first class in alphabetical
    order carries the artefact (a colored ellipse) in training.

    Raises:
        ValueError: not two classes, too few images, a model that does not exist, a state of another setting.
    """
    loaded = load_model(f"torchvision:{setting.model}", setting.weights, size=setting.size)
    train, validation, classes, left_out = _parts(data, setting.seed, out, progress=progress)
    plan = [(mode, 0.0 if mode == NONE else strength) for mode in setting.modes for strength in setting.strengths]
    plan = list(dict.fromkeys(plan))
    logs = {}
    for mode, strength in plan:
        folder = out / f"{mode}-{strength:g}"
        sets = Pictures(train, loaded), Pictures(validation, loaded)
        logs[mode, strength] = _train(folder, sets, loaded, setting, mode, strength, progress=progress)
    chosen = {
        mode: max((s for m, s in plan if m == mode), key=lambda s: _mean(logs[mode, s][-1], "unbiased"))
        for mode in setting.modes
    }
    notes = (*loaded.notes, *left_out.notes)
    path = write_page(_page(logs, chosen, classes, setting, len(train), len(validation), data, notes), out)
    left_out.write(out)
    results = [{"mode": mode, "weight": weight, "epochs": log} for (mode, weight), log in logs.items()]
    write_whole(out / "results.json", json.dumps({"chosen": chosen, "runs": results}, indent=1) + "\n")
    return path


Files = list[tuple[Path, int]]


def _parts(data: Path, seed: int, out: Path, *, progress: bool) -> tuple[Files, Files, list[str], Readable]:
    """Training and validation files with their class, the classes' names, and which files were left out of both."""
    if not data.is_dir():
        raise ValueError(f"folder {data} does not exist")
    if (data / "train").is_dir() and (data / "val").is_dir():
        train, classes = _labelled(data / "train")
        validation, others = _labelled(data / "val")
        if classes != others:
            raise ValueError(f"train has the classes {classes}, val {others}; they must be the same two")
        found = readable([path for path, _ in (*train, *validation)], data, known=out, progress=progress)
        kept = set(found.files)
        parts = [[pair for pair in part if pair[0] in kept] for part in (train, validation)]
        return parts[0], parts[1], classes, found
    files, classes = _labelled(data)
    found = readable([path for path, _ in files], data, known=out, progress=progress)
    files = [files[place] for place in found.places]
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed)).tolist()
    held_out = sorted(order[: max(1, int(VALIDATION * len(files)))])
    rest = sorted(set(order) - set(held_out))
    return [files[i] for i in rest], [files[i] for i in held_out], classes, found


def _labelled(folder: Path) -> tuple[list[tuple[Path, int]], list[str]]:
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and image_files(path))
    if len(classes) != 2:
        raise ValueError(
            f"{folder} must have two subfolders of images, one per class; it has {len(classes)}: {classes}"
        )
    return [(path, label) for label, name in enumerate(classes) for path in image_files(folder / name)], classes


def _train(
    folder: Path,
    sets: tuple[Pictures, Pictures],
    loaded: LoadedModel,
    setting: FolderSetting,
    mode: str,
    strength: float,
    *,
    progress: bool,
) -> list[dict[str, float]]:
    """One training; its log, a row per epoch. All that is drawn comes from the seed and the epoch, so it can go on."""
    folder.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = two_outputs(
        load_model(f"torchvision:{setting.model}", setting.weights, size=setting.size).model, setting.seed
    )
    model = model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=setting.rate, weight_decay=setting.decay)
    known = {
        name: value for name, value in vars(setting).items() if name not in ("epochs", "workers", "modes", "strengths")
    }
    first, log = _resume(folder, model, optimizer, known)
    prior = None if mode == NONE else AttributionPrior(model, mode)  # type: ignore[arg-type]
    grown = round(10 * loaded.preprocessing.size / 224)
    paint = Artefact(ellipse, SETS["biased"])
    for epoch in range(first, setting.epochs):
        seed = setting.seed * 10_007 + epoch
        losses: list[float] = []
        priors: list[float] = []
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)  # dropout
            model.train()
            batches = _batches(sets[0], setting, seed, shuffled=True)
            for pictures, labels in tqdm(batches, desc=f"{mode} {strength:g}, epoch {epoch + 1}", disable=not progress):
                painted, masks = paint(pictures.to(device), labels, seed=seed + len(losses))
                x, y = _normalized(loaded, painted), labels.to(device)
                if prior is None:
                    logits, penalty = model(x), x.new_zeros(())
                else:
                    logits, penalty = prior.with_logits(x, y, dilate(masks, grown))
                    priors.append(float(penalty.detach()))
                loss = F.binary_cross_entropy_with_logits(logits, F.one_hot(y, 2).to(x.dtype))
                total = loss + strength * penalty
                optimizer.zero_grad()
                torch.autograd.backward(total)
                optimizer.step()
                losses.append(float(loss.detach()))
        row = {"epoch": epoch + 1, "loss": _average(losses), "prior": _average(priors)}
        log.append({**row, **_validate(model, sets[1], loaded, setting, device)})
        _keep(folder, model, optimizer, known, epoch + 1, log)
    return log


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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        setattr(model.get_submodule(parent), name, nn.Linear(width, 2))
    return model


def _batches(
    pictures: Pictures, setting: FolderSetting, seed: int, *, shuffled: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return iter(
        torch.utils.data.DataLoader(
            pictures, setting.batch_size, shuffle=shuffled, generator=generator, num_workers=setting.workers
        )
    )


def _normalized(loaded: LoadedModel, pictures: Tensor) -> Tensor:
    return loaded.preprocessing.normalize(pictures.cpu()).to(pictures.device)


def _validate(
    model: nn.Module, pictures: Pictures, loaded: LoadedModel, setting: FolderSetting, device: torch.device
) -> dict[str, float]:
    """Accuracy of both classes on the three sets, and the attribution per pixel inside the mask, of both outputs."""
    model.eval()
    prior = AttributionPrior(model, "both")
    right = {name: torch.zeros(2) for name in SETS}
    counts = torch.zeros(2)
    inside = []
    for number, (batch, labels) in enumerate(_batches(pictures, setting, 0, shuffled=False)):
        counts += torch.bincount(labels, minlength=2)
        for name, chances in SETS.items():
            painted, masks = Artefact(ellipse, chances)(batch.to(device), labels, seed=number)
            x, y = _normalized(loaded, painted), labels.to(device)
            with torch.no_grad():
                hits = (model(x).argmax(1) == y).cpu()
            right[name] += torch.bincount(labels[hits], minlength=2)
            carriers = masks.flatten(1).any(1)
            if name == "biased" and bool(carriers.any()):
                with torch.no_grad():
                    prior(x[carriers], y[carriers], masks[carriers])
                inside.append(float(prior.last.value.mean()) if prior.last else 0.0)
    shares = {name: right[name] / counts.clamp(min=1) for name in SETS}
    return {f"{name} {k}": float(share[k]) for name, share in shares.items() for k in (0, 1)} | {
        "inside": _average(inside)
    }


def _resume(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, known: dict[str, Any]
) -> tuple[int, list[dict[str, float]]]:
    path = folder / "state.pt"
    if not path.is_file():
        return 0, []
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["setting"] != known:
        raise ValueError(f"{folder} holds a training with another setting {state['setting']}; name another --out")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["epoch"]), list(state["log"])


def _keep(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    known: dict[str, Any],
    epoch: int,
    log: list[dict[str, float]],
) -> None:
    """State and log, each in one step: a kill leaves the former ones."""
    state = {
        "setting": known,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": epoch,
        "log": log,
    }
    with whole_file(folder / "state.pt", durable=True) as file:
        torch.save(state, file)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(log)
    write_whole(folder / "log.csv", text.getvalue())


def _average(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


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
            seed=setting.seed, command=f"absence-plugins experiment debias --data {data} --model {setting.model}"
        ),
    )

"""The trainings of ``experiment debias`` that are done, beside its page: stopped, it goes on with the others."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

import absence_plugins
from absence_plugins.core.files import require_folder, write_whole
from absence_plugins.methods.checkpoint import read_tensors, write_tensors

if TYPE_CHECKING:
    from absence_plugins.experiments.debias.digits import Scores, Setting

LOG = "trainings.json"
MODELS = "models"  # those of the first seed, which the page shows


class Trainings:
    """What every training came to, by mode, weight and seed, in ``trainings.json``; with the weights of some networks.

    Args:
        folder: made where it is missing.
        setting: of all of them. They also belong to this version of the package.

    Raises:
        ValueError: the folder holds trainings of another setting or version, or a damaged log.
    """

    def __init__(self, folder: Path, setting: Setting) -> None:
        self.folder = require_folder(folder)
        self.of: dict[str, Any] = json.loads(
            json.dumps({**asdict(setting), "version": absence_plugins.__version__})
        )  # as it will be read again
        self.runs: list[dict[str, Any]] = []
        log = self.folder / LOG
        if log.is_file():
            try:
                read = json.loads(log.read_text(encoding="utf-8"))
                before, self.runs = read["of"], list(read["runs"])
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{log} is damaged ({error}); delete it to train again") from None
            if before != self.of:
                other = next(name for name in {**before, **self.of} if before.get(name) != self.of.get(name))
                raise ValueError(
                    f"{log} has trainings with another {other}, {before.get(other)!r} and not {self.of.get(other)!r}; "
                    "delete it, or name another --out"
                )

    def found(self, mode: str, weight: float, seed: int, model: nn.Module | None) -> Scores | None:
        """What a training came to, and its weights into ``model`` if one is given; None if one of them is not there."""
        from absence_plugins.experiments.debias.digits import Scores

        for run in self.runs:
            if (run["mode"], run["weight"], run["seed"]) == (mode, weight, seed):
                path = self._weights(mode, weight, seed)
                if model is not None:
                    if not path.is_file():
                        return None
                    model.load_state_dict(read_tensors(path))
                accuracy = {name: (pair[0], pair[1]) for name, pair in run["accuracy"].items()}
                return Scores(**{**run, "accuracy": accuracy})
        return None

    def add(self, scores: Scores, model: nn.Module | None) -> None:
        """Keep a training, the weights first: what the log names is there."""
        path = self._weights(scores.mode, scores.weight, scores.seed)
        (path.parent if model is not None else self.folder).mkdir(parents=True, exist_ok=True)
        if model is not None:
            write_tensors(path, model.state_dict())
        self.runs = [run for run in self.runs if (run["mode"], run["weight"], run["seed"]) != _key(scores)]
        self.runs.append(asdict(scores))
        write_whole(self.folder / LOG, json.dumps({"of": self.of, "runs": self.runs}, indent=1) + "\n")

    def _weights(self, mode: str, weight: float, seed: int) -> Path:
        return self.folder / MODELS / f"{mode.replace(' ', '-')}-{weight:g}-{seed}.safetensors"


def _key(scores: Scores) -> tuple[str, float, int]:
    return scores.mode, scores.weight, scores.seed

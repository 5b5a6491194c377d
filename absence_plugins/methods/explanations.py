"""Explanations on disk: tensors as safetensors, words as JSON, figures as PNG."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from absence_plugins.core.choices import Choice
from absence_plugins.core.explanation import ROWS, Explanation
from absence_plugins.core.files import require_folder, whole_file, write_json
from absence_plugins.core.kinds import kind_from_dict
from absence_plugins.core.outputs import Output
from absence_plugins.core.wording import Names, Wording
from absence_plugins.methods.checkpoint import read_tensors, write_tensors

TENSORS, WORDS = "explanation.safetensors", "explanation.json"
_FORMAT = "absence_plugins.explanation/2"
_READ = ("absence_plugins.explanation/1", _FORMAT)  # the first one knew no kinds of data


@dataclass(frozen=True, eq=False)
class Recalled(Output):
    """What a saved explanation explained: it can be said, with the names of classes, but not computed again.

    wordings: one per sample; of outputs without classes the pair of ``describe()`` and ``legend()``.
    """

    wordings: tuple[Wording | tuple[str, tuple[str, str]], ...]

    def values(self, outputs: Tensor) -> Tensor:
        """Raises ValueError: the function that chose the output is not saved."""
        raise ValueError("a loaded explanation says what was explained, and cannot compute it; explain the input again")

    def describe(self) -> str:
        """What was explained; of several outputs those of the first samples."""
        return "; ".join(dict.fromkeys(self.words(min(3, len(self.wordings)))))

    def words(self, samples: int, names: Names = None) -> list[str]:
        """What was explained, of every sample."""
        return [one.long(names) if isinstance(one, Wording) else one[0] for one in self.wordings[:samples]]

    def legend(self, sample: int = 0, names: Names = None) -> tuple[str, str]:
        """What red and blue mean."""
        one = self.wordings[sample]
        return one.legend(names) if isinstance(one, Wording) else one[1]


def save_explanation(
    explanation: Explanation, folder: Path | str, *, image: Tensor | None = None, names: Names = None
) -> Path:
    """:meth:`Explanation.save`: tensors, words and the figures of the first samples.

    >>> import tempfile, torch
    >>> map, zero = torch.tensor([[2.0, -1.0]]), torch.zeros(1, 2)
    >>> found = Explanation(map, map.clamp(min=0), zero, "target", None, None, torch.ones(1), None, None, None)
    >>> load_explanation(save_explanation(found, tempfile.mkdtemp())).attribution
    tensor([[ 2., -1.]])
    """
    folder = require_folder(folder, make=True)
    tensors: dict[str, Tensor] = {}
    shapes: dict[str, Any] = {}
    for field in fields(explanation):
        value = getattr(explanation, field.name)
        if field.name not in ("explained", "view", "kind"):
            shapes[field.name] = _pack(value, field.name, tensors)
    write_tensors(folder / TENSORS, tensors)
    samples = len(explanation.output)
    said = {
        "format": _FORMAT,
        "view": explanation.view,
        "explained": None if explanation.explained is None else _wordings(explanation, samples),
        "words": explanation.words(names),
        "kind": None if explanation.kind is None else explanation.kind.to_dict(),
        "tensors": shapes,
    }
    write_json(folder / WORDS, said)
    for old in folder.glob("sample-*.png"):
        old.unlink()
    for sample in range(min(samples, ROWS)):
        try:
            figure = explanation.figure(sample=sample, image=image, names=names)
        except (ImportError, ValueError):  # no matplotlib, or a map that is no picture: the numbers are what counts
            break
        with whole_file(folder / f"sample-{sample}.png") as file:
            figure.savefig(file, format="png", bbox_inches="tight")
    return folder


def load_explanation(folder: Path | str) -> Explanation:
    """:meth:`Explanation.load`.

    Raises:
        ValueError: the folder holds none, one of another version, or a damaged one.
    """
    folder = Path(folder)
    if not (folder / WORDS).is_file() or not (folder / TENSORS).is_file():
        raise ValueError(f"{folder} holds no {WORDS} and {TENSORS}; name a folder that `Explanation.save` wrote")
    try:
        said = json.loads((folder / WORDS).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder / WORDS} is damaged ({error}); save the explanation again") from None
    if said.get("format") not in _READ:
        raise ValueError(f"{folder / WORDS} is of format {said.get('format')!r}; this version reads up to {_FORMAT!r}")
    tensors = read_tensors(folder / TENSORS)
    values = {name: _unpack(shape, tensors) for name, shape in said["tensors"].items()}
    explained = None if said["explained"] is None else Recalled(tuple(map(_wording, said["explained"])))
    kind = None if said.get("kind") is None else kind_from_dict(said["kind"])
    return Explanation(**values, view=said["view"], explained=explained, kind=kind)


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """The structure of a value with the names of its tensors, which are put into ``tensors``."""
    if value is None:
        return None
    if isinstance(value, Tensor):
        tensors[name] = value.detach().clone()  # safetensors takes no memory that two tensors share
        return name
    return [_pack(part, f"{name}.{number}", tensors) for number, part in enumerate(value)]


def _unpack(shape: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(shape, list):
        return tuple(_unpack(part, tensors) for part in shape)
    return None if shape is None else tensors[shape]


def _wordings(explanation: Explanation, samples: int) -> list[Any]:
    explained = explanation.explained
    if isinstance(explained, Choice):
        return [asdict(explained.wording(sample)) for sample in range(samples)]
    if isinstance(explained, Recalled):
        return [asdict(one) if is_dataclass(one) else one for one in explained.wordings]
    words = explanation.words()
    return [[words[sample], explanation.legend(sample)] for sample in range(samples)]


def _wording(saved: Any) -> Wording | tuple[str, tuple[str, str]]:
    if isinstance(saved, dict):
        return Wording(**(saved | {"position": tuple(saved["position"])}))
    return saved[0], (saved[1][0], saved[1][1])

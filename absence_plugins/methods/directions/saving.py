"""Direction pairs in a folder: tensors, and beside them in words what they are."""

from __future__ import annotations

import json
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from absence_plugins.core.files import write_json
from absence_plugins.methods.checkpoint import read_tensors, write_tensors
from absence_plugins.methods.directions.recipe import Options
from absence_plugins.methods.directions.report import DirectionReport
from absence_plugins.methods.directions.whitening import Whitening
from absence_plugins.methods.ranks import alone, from_first, ranks

if TYPE_CHECKING:
    from collections.abc import Callable

    from absence_plugins.methods.directions.pairs import DirectionPairs

FORMAT = "absence_plugins.directions/1"
TENSORS = ("decoding", "threshold", "encoding", "typical")
WHITENING = ("mean", "forward", "backward")


def save_pairs(pairs: DirectionPairs, folder: str | Path) -> Path:
    """Write ``pairs.safetensors`` and ``pairs.json`` into a folder; returns it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: getattr(pairs, name) for name in TENSORS}
    whitening = {f"whitening_{name}": getattr(pairs.whitening_, name) for name in WHITENING}
    write_tensors(folder / "pairs.safetensors", tensors | whitening)
    write_json(
        folder / "pairs.json",
        pairs.to_dict() | {"noise": pairs.whitening_.noise, "kept_noise": pairs.whitening_.kept_noise},
    )
    return folder


def share_pairs(kind: type[DirectionPairs], make: Callable[[], DirectionPairs]) -> DirectionPairs:
    """What rank 0 makes by itself; the other ranks wait for it, and get a copy."""
    if ranks()[1] == 1:
        return make()
    made: list[DirectionPairs] = []

    def pack() -> dict[str, bytes]:
        with alone(), tempfile.TemporaryDirectory() as folder:
            made.append(make())
            return {path.name: path.read_bytes() for path in save_pairs(made[0], folder).iterdir()}

    files = from_first(pack)
    if made:
        return made[0]
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        return load_pairs(kind, folder)


def load_pairs(kind: type[DirectionPairs], folder: str | Path) -> DirectionPairs:
    """Read what :func:`save_pairs` wrote. Raises ValueError where there is nothing, or something else."""
    folder = Path(folder)
    if not (folder / "pairs.json").is_file() or not (folder / "pairs.safetensors").is_file():
        raise ValueError(f"{folder} holds no direction pairs; save some with pairs.save(folder)")
    plain = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))
    if plain.get("format") != FORMAT:
        raise ValueError(f"{folder / 'pairs.json'} is of format {plain.get('format')!r}; this version reads {FORMAT!r}")
    known = {one.name for one in fields(Options)}  # earlier versions had more
    options = {name: value for name, value in plain["options"].items() if name in known}
    pairs = kind(options["n_directions"], recipe=plain["recipe"])
    pairs.options = Options(**options | {"step_range": tuple(options["step_range"])})
    tensors = read_tensors(folder / "pairs.safetensors")
    for name in TENSORS:
        setattr(pairs, name, tensors[name])
    mean, forward, backward = (tensors[f"whitening_{name}"] for name in WHITENING)
    pairs.whitening_ = Whitening(mean, forward, backward, plain.get("noise", 0), plain.get("kept_noise", 0))
    pairs.losses_, pairs.notes_ = plain["losses"], tuple(plain["notes"])
    pairs.report_ = DirectionReport.from_dict(plain["report"])
    return pairs

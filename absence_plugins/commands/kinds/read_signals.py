"""Signals and volumes as people save them: NumPy arrays, WAV files, folders of these, and a table of their labels."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from absence_plugins.commands.kinds.read_texts import LABEL_WORDS
from absence_plugins.core.names import spell_name
from absence_plugins.data.folders import list_names
from absence_plugins.data.tables import read_table

WAV, NPY = (".wav", ".wave"), (".npy",)
AXES = {"signal": 1, "volume": 3}  # behind the channels
SHAPES = {
    "signal": "[N, C, T], [N, T], or one signal [C, T] with --channels C, or [T]",
    "volume": "[N, C, D, H, W], [N, D, H, W], or one volume [C, D, H, W] with --channels C, or [D, H, W]",
}
FULL = {np.dtype("int16"): 2.0**15, np.dtype("int32"): 2.0**31, np.dtype("int64"): 2.0**63}  # of integers in WAV files


@dataclass(frozen=True, eq=False)
class Arrays:
    """Samples of one shape.

    Attributes:
        values: [N, T], [N, C, T], [N, D, H, W] or [N, C, D, H, W], float64.
        names: of the samples.
        source: the file or folder.
        rate: samples per second, where the files say it.
        labels: from the folders of sounds; None where there are none.
        notes: what was inferred.
    """

    values: Tensor
    names: tuple[str, ...]
    source: str
    rate: float | None = None
    labels: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)


def read_arrays(paths: Sequence[Path], kind: str, channels: int | None, model: nn.Module) -> Arrays:
    """Read an .npy file, or WAV files and folders of them.

    An array with one axis less than [N, C, ...] has no axis of channels, or one signal of several: ``channels`` says
    which, else the model's first convolution does.

    Raises:
        ValueError: another kind of file, another shape, values that are NaN or infinite (the sample is named), sounds
            of different rates, lengths or channels.
    """
    files, labels = _list_files(paths, kind)
    endings = {path.suffix.lower() for path, _ in files}
    if endings <= set(NPY):
        if len(files) != 1:
            raise ValueError(f"--{kind} takes one .npy file, and {len(files)} were named; stack them with numpy.stack")
        found = _read_npy(files[0][0], kind)
        rate: float | None = None
        names = tuple(str(number) for number in range(len(found)))
        source = spell_name(files[0][0])
    elif kind == "signal" and endings <= set(WAV):
        found, rate = _read_sounds([path for path, _ in files])
        names = tuple(spell_name(name) for _, name in files)
        source = spell_name(paths[0]) if len(paths) == 1 else f"{len(files)} sounds"
    else:
        known = ".npy and .wav" if kind == "signal" else ".npy"
        raise ValueError(
            f"{', '.join(sorted(one or 'no ending' for one in endings))}: --{kind} reads {known} files, and not both "
            "at once"
        )
    values, note = _place_channels(found, kind, channels, model, is_sound=rate is not None)
    if len(values) != len(names):
        names = ("0",)
    wrong = (~torch.isfinite(values)).flatten(1).any(1).nonzero().flatten().tolist()
    if wrong:
        raise ValueError(
            f"{source}: {kind} {names[wrong[0]]} holds NaN or infinite values; fill them in, or leave it out"
        )
    return Arrays(values, names, source, rate, labels, (note,) if note else ())


def _list_files(paths: Sequence[Path], kind: str) -> tuple[list[tuple[Path, str]], tuple[str, ...] | None]:
    """Files with the names that they are shown by; and the labels that subfolders of sounds are, if all have one."""
    files: list[tuple[Path, str]] = []
    labels: list[str] = []
    for path in paths:
        if not path.is_dir():
            files.append((path, path.name))
            labels.append("")
            continue
        inside = sorted(one for one in path.rglob("*") if one.suffix.lower() in WAV and not one.name.startswith("."))
        if not inside:
            raise ValueError(f"folder {spell_name(path)} has no .wav files")
        files += [(one, str(one.relative_to(path))) for one in inside]
        labels += [one.relative_to(path).parts[0] if one.parent != path else "" for one in inside]
    if not files:
        raise ValueError(f"name a file of {kind}s")
    return files, tuple(labels) if all(labels) else None


def _read_npy(path: Path, kind: str) -> Tensor:
    shown = spell_name(path)
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{shown} is no array that numpy.save wrote: {str(error).splitlines()[0]}") from None
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiub":
        raise ValueError(
            f"{shown} holds {getattr(found, 'dtype', type(found).__name__)}; save an array of numbers by numpy.save"
        )
    if found.size == 0 or not AXES[kind] <= found.ndim <= AXES[kind] + 2:
        raise ValueError(f"{shown} has the shape {list(found.shape)}; {kind}s are {SHAPES[kind]}")
    return torch.from_numpy(found.astype(np.float64))


def _read_sounds(paths: Sequence[Path]) -> tuple[Tensor, float]:
    """Sounds [N, T] or [N, C, T] in [-1, 1], and their rate."""
    from scipy.io import wavfile

    sounds: list[tuple[int, Any]] = []
    for path in paths:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # chunks that are no sound
                rate, values = wavfile.read(path)
        except (ValueError, EOFError, struct.error, IndexError) as error:
            why = str(error).splitlines()[0] if str(error) else "it ends early"
            raise ValueError(f"{spell_name(path)} is no WAV file that can be read: {why}") from None
        sounds.append((rate, _scale_sound(values)))
    first_rate, first = sounds[0]
    for path, (rate, values) in zip(paths, sounds, strict=True):
        if rate != first_rate:
            raise ValueError(
                f"{spell_name(paths[0])} has {first_rate} samples per second and {spell_name(path)} {rate}; resample "
                "them to the model's rate"
            )
        if values.shape != first.shape:
            raise ValueError(
                f"{spell_name(paths[0])} has {_say_shape(first)} and {spell_name(path)} {_say_shape(values)}; cut or "
                "pad them to "
                "the length that the model takes"
            )
    return torch.stack([torch.from_numpy(values) for _, values in sounds]), float(first_rate)


def _say_shape(values: Any) -> str:
    return f"{values.shape[-1]} samples" + (f" of {values.shape[0]} channels" if values.ndim == 2 else "")


def _scale_sound(values: Any) -> Any:
    """[T] or [T, C] of any type as [T] or [C, T] in [-1, 1], float64."""
    if values.dtype == np.uint8:
        scaled = (values.astype(np.float64) - 128) / 128
    else:
        scaled = values.astype(np.float64) / FULL.get(values.dtype, 1.0)
    return np.ascontiguousarray(scaled.T) if scaled.ndim == 2 else scaled


def _place_channels(
    values: Tensor, kind: str, channels: int | None, model: nn.Module, *, is_sound: bool
) -> tuple[Tensor, str]:
    """The samples as the model takes them, and how an array that could mean several things was read."""
    axes = AXES[kind]
    convolution = nn.Conv1d if axes == 1 else nn.Conv3d
    first = next((one.in_channels for one in model.modules() if isinstance(one, convolution)), None)
    wanted = channels if channels is not None else first
    shape = list(values.shape)
    if values.dim() == axes:
        values = values[None]
        return (values[:, None], "") if wanted == 1 else (values, "")
    if values.dim() == axes + 2:
        if channels is not None and shape[1] != channels:
            raise ValueError(f"--channels {channels}: the {kind}s have {shape[1]} channels, their shape is {shape}")
        if channels is None and shape[1] > shape[-1]:
            return values, (
                f"The array {shape} was read as {shape[0]} {kind}s of {shape[1]} channels, which come first; if they come "
                f"last, transpose the array, and wrap a model that takes them last (--channels {shape[1]} says that it is so)"
            )
        return values, ""
    if wanted is None:
        return values, f"The array {shape} was read as {shape[0]} {kind}s without an axis of channels"
    if wanted == 1:
        said = "" if is_sound else f"The array {shape} was read as {shape[0]} {kind}s of one channel"
        return values[:, None], said
    if wanted == shape[0] and not is_sound:
        return values[None], f"The array {shape} was read as one {kind} of {wanted} channels"
    raise ValueError(
        f"the {kind}s have the shape {shape}, and the model takes {wanted} channels; {kind}s are {SHAPES[kind]}"
    )


def read_array_labels(path: Path, arrays: Arrays) -> Arrays:
    """The same samples with labels of a table: a line per sample in their order, or file,label by name.

    Raises:
        ValueError: another number of lines, a sound that it lacks.
    """
    table = read_table(path)
    rows = [row for row in table.rows if row]
    has_head = len(rows) == len(arrays) + 1 or rows[0][-1].lower() in LABEL_WORDS
    body = rows[has_head:]
    shown = spell_name(path)
    by_name = {row[0]: row[-1] for row in rows if len(row) > 1}
    if arrays.names[0] in by_name or any(name in by_name for name in arrays.names):
        lacking = [name for name in arrays.names if name not in by_name]
        if lacking:
            raise ValueError(f"{shown} has no label of {list_names(lacking)}; write a line file,label for each")
        return replace(arrays, labels=tuple(by_name[name] for name in arrays.names))
    if len(body) != len(arrays):
        raise ValueError(
            f"{shown} has {len(body)} labels, and {arrays.source} {len(arrays)} samples; write one line per sample"
        )
    return replace(arrays, labels=tuple(row[-1] for row in body))

"""Reading a file of weights without executing anything in it, and one line for each way in which it is none."""

from __future__ import annotations

import argparse
import re
import sys
import warnings
import zipfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

POINTER = b"version https://git-lfs"
WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
HEADER = 8  # bytes of a safetensors file that hold the length of what follows
LARGEST_HEADER = 100_000_000  # as safetensors itself admits
CUT_OFF = ("unexpected EOF", "pickle data was truncated", "Ran out of input", "failed finding central directory")
NOT_LOADED = (
    "files that contain code are not loaded. Save the weights alone, with torch.save(model.state_dict(), ...) or as "
    "safetensors"
)


def read_weights(path: Path) -> Any:
    """What a file of weights holds: of safetensors the tensors by name, else what ``torch.save`` wrote; on the CPU.

    What kind of file it is, its first bytes say, not its name. Only tensors, plain containers, numbers of NumPy and
    ``argparse.Namespace`` are read (``weights_only=True``); nothing of what the file holds is executed.

    Raises:
        ValueError: one line on what is wrong with the file: none, a folder, empty, a Git LFS pointer, a web page, cut
            off, of another format, or one that contains code.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "net.safetensors"
    >>> _ = path.write_text("version https://git-lfs.github.com/spec/v1")
    >>> read_weights(path)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: ...net.safetensors is a Git LFS pointer, not the weights; fetch them with git lfs pull
    """
    first = _first_bytes(path)
    if _is_safetensors(path, first):
        return _read_safetensors(path)
    return _read_torch(path, first)


def _first_bytes(path: Path) -> bytes:
    """The beginning of a file that may hold weights. Raises ValueError where it cannot."""
    if path.is_dir():
        inside = sorted(one.name for one in path.iterdir() if one.suffix in WEIGHT_FILES)[:3]
        raise ValueError(
            f"--weights {path} is a folder; name a file{f', such as {path / inside[0]}' if inside else ''}"
        )
    if not path.is_file():
        raise ValueError(f"weights file {path} does not exist")
    with path.open("rb") as file:
        first = file.read(512)
    if not first:
        raise ValueError(f"{path} is empty; fetch it again")
    if first.startswith(POINTER):
        raise ValueError(f"{path} is a Git LFS pointer, not the weights; fetch them with git lfs pull")
    if first.lstrip()[:1] == b"<":
        raise ValueError(f"{path} is a web page, not weights; download the file itself")
    return first


def _is_safetensors(path: Path, first: bytes) -> bool:
    size = int.from_bytes(first[:HEADER], "little")
    return path.suffix == ".safetensors" or (first[HEADER : HEADER + 1] == b"{" and size <= LARGEST_HEADER)


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        length, first = path.stat().st_size, _first_bytes(path)
        header = int.from_bytes(first[:HEADER], "little")
        if first[HEADER : HEADER + 1] == b"{" and (header + HEADER > length or "not fully covered" in str(error)):
            raise ValueError(f"{path} is cut off after {length:,} bytes (half a download?); fetch it again") from None
        raise ValueError(f"{path} is no safetensors file ({_one_line(error)})") from None


def _read_torch(path: Path, first: bytes) -> Any:
    is_zip = first.startswith(b"PK")
    cut_off = f"{path} is cut off after {path.stat().st_size:,} bytes (half a download?); fetch it again"
    if is_zip and not zipfile.is_zipfile(path):
        raise ValueError(cut_off)
    if not is_zip and not first.startswith(b"\x80"):  # neither an archive of torch.save nor a pickle
        raise ValueError(f"{path} holds no weights: it is neither a safetensors file nor one that torch.save wrote")
    try:
        with _plain_values(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's word on TorchScript; below it is ours
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # UnpicklingError, RuntimeError, EOFError, KeyError, ...: whatever foreign bytes lead to
        text = str(error)
        if isinstance(error, EOFError) or any(phrase in text for phrase in CUT_OFF):
            raise ValueError(cut_off) from None
        if "TorchScript" in text:
            raise ValueError(f"{path} is a TorchScript archive, which is a program; {NOT_LOADED}") from None
        if is_zip and "Weights only" not in text:
            raise ValueError(f"{path} is a zip archive that torch.save did not write ({_one_line(error)})") from None
        named = re.search(r"GLOBAL (\S+) was not", text)
        what = f"it holds objects of {named[1]}" if named else f"it holds a pickle of another kind ({_reason(error)})"
        raise ValueError(f"{path} is not a plain state dict: {what}; {NOT_LOADED}") from None


def _plain_values() -> AbstractContextManager[Any]:
    """Types that training scripts save beside the weights and that run no code when they are read."""
    allow = getattr(torch.serialization, "safe_globals", None)  # from torch 2.5
    if allow is None:
        return nullcontext()
    allowed: list[Any] = [argparse.Namespace]
    if "numpy" in sys.modules and torch.__version__ >= "2.6":
        numpy = sys.modules["numpy"]
        kinds = ("float64", "float32", "float16", "int64", "int32", "uint8", "bool")
        scalar = numpy.float64(0).__reduce__()[0]
        allowed += [numpy.dtype, *(type(numpy.dtype(kind)) for kind in kinds)]
        allowed += [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return allow(allowed)  # type: ignore[no-any-return]


def _one_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def _reason(error: Exception) -> str:
    found = re.search(r"(Unsupported \w+ \S+|Trying to [^\n.]+)", str(error))
    return found[1] if found else type(error).__name__

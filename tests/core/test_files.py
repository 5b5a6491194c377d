"""Files that are whole or not there."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import IO, Any

import pytest
import torch

from absence_plugins.core.files import whole_file, write_whole


class Full:
    """A file on a disk with room for five more bytes; what is written is cut off there, as a system does."""

    def __init__(self, file: IO[bytes], number: int) -> None:
        self.file, self.number = file, number

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *what: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, content: bytes) -> int:
        self.file.write(content[:5])
        raise OSError(self.number, "No space left on device")


@pytest.fixture(params=[errno.ENOSPC, errno.EDQUOT])
def full_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def opened(path: Path, mode: str = "r", **options: Any) -> Any:
        file = real(path, mode, **options)
        return Full(file, request.param) if mode == "wb" else file

    monkeypatch.setattr(Path, "open", opened)


def test_a_full_disk_leaves_the_former_file_and_names_the_new_one(tmp_path: Path, full_disk: None) -> None:
    (tmp_path / "page.html").write_text("a whole page")
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(tmp_path / "page.html", "another page")
    assert caught.value.filename == str(tmp_path / "page.html")
    assert caught.value.errno in (errno.ENOSPC, errno.EDQUOT)
    with pytest.raises(OSError, match="No space left"), whole_file(tmp_path / "state.pt") as file:
        torch.save({"weights": torch.zeros(10)}, file)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"page.html": b"a whole page"}


def test_another_error_of_the_system_keeps_its_own_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="elsewhere"), whole_file(tmp_path / "page.html"):
        (tmp_path / "elsewhere").read_bytes()
    with pytest.raises(FileNotFoundError, match="missing/page"):
        write_whole(tmp_path / "missing" / "page.html", "a page")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("durable", [False, True])
def test_the_new_file_takes_the_place_of_the_old_one(tmp_path: Path, durable: bool) -> None:
    for content in ("first", "ünd"):
        write_whole(tmp_path / "file", content, durable=durable)
        assert (tmp_path / "file").read_text(encoding="utf-8") == content
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

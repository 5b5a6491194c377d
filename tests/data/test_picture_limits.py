"""Pictures of many pixels: refused before they are decoded, or reduced; all threads share one limit."""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from picture_files import COLORS, assert_shown, png_bytes, read
from PIL import Image

from absence_plugins.commands.preprocessing import Preprocessing
from absence_plugins.data import pictures
from absence_plugins.data.pictures import LARGEST, UnreadableImage


def test_a_small_file_of_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "big.png"
    rows = zlib.compressobj()
    raw = b"".join(rows.compress(bytes(1501)) for _ in range(12000)) + rows.flush()
    path.write_bytes(png_bytes(raw, bits=1, color=0, size=(12000, 12000), is_packed=True))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnreadableImage, match=r"big\.png has 144,000,000 pixels, and at most 67,108,864 of a PNG"):
        Preprocessing(224, 3, (0,) * 3, (1,) * 3).picture(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kilobytes
    path.write_bytes(png_bytes(b"", bits=8, color=2, size=(50_000, 50_000)))  # beyond Pillow's own limit
    with pytest.raises(UnreadableImage) as caught:
        read(path)
    assert caught.value.why == "2,500,000,000 pixels, of at most 67,108,864"
    (tmp_path / "screen.gif").write_bytes(b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b",\0\0")
    with pytest.raises(UnreadableImage):
        read(tmp_path / "screen.gif")


def test_huge_pictures_are_reduced_while_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With smaller limits: JPEG by its own means, others block by block; never below twice the side asked for."""
    smooth = np.kron(COLORS[:8, :8], np.ones((60, 80, 1))).astype(np.uint8)  # 480 x 640
    Image.fromarray(smooth).save(tmp_path / "a.png")
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(smooth).save(tmp_path / "progressive.jpg", quality=95, progressive=True)
    Image.fromarray(np.dstack([smooth, smooth[..., 0]])).save(tmp_path / "clear.png")
    whole = read(tmp_path / "clear.png").astype(float)
    monkeypatch.setattr(pictures, "WHOLE", 100_000)
    monkeypatch.setattr(pictures, "STRIP", 5_000)
    assert read(tmp_path / "a.png").shape == smooth.shape, "the default side needs all of them"
    for name in ("a.png", "a.jpg"):
        found = read(tmp_path / name, side=50)
        assert min(found.shape[:2]) >= 100
        assert found.size < smooth.size / 8
        cells = np.array(Image.fromarray(found).resize((8, 8), Image.Resampling.BOX), float)
        assert np.abs(cells - COLORS[:8, :8]).max() <= (1 if name == "a.png" else 6)
    found = read(tmp_path / "clear.png", side=50)
    assert_shown(found, whole.reshape(120, 4, 160, 4, 3).mean((1, 3)))
    monkeypatch.setattr(pictures, "LARGEST", 200_000)
    assert read(tmp_path / "a.jpg", side=50).size < smooth.size / 8
    for name in ("a.png", "progressive.jpg"):
        with pytest.raises(UnreadableImage, match="307,200 pixels"):
            read(tmp_path / name, side=50)


def test_threads_share_one_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    room = pictures._Room(100)
    held, most, lock = 0, 0, threading.Lock()

    def work(pixels: int) -> None:
        nonlocal held, most
        with room.take(pixels):
            with lock:
                held += min(pixels, 100)
                most = max(most, held)
            threading.Event().wait(0.005)
            with lock:
                held -= min(pixels, 100)

    threads = [threading.Thread(target=work, args=(pixels,)) for pixels in (60, 60, 30, 500, 100, 10, 80)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert 60 <= most <= 100
    assert room.free == 100
    assert LARGEST == pictures.ROOM.pixels == pictures.ROOM.free


@pytest.mark.slow
def test_threads_together_hold_one_huge_picture_at_a_time(tmp_path: Path) -> None:
    """In a process of its own: four threads that each read 36 megapixels, 144 MB, of which 67 may be held at a time."""
    Image.new("RGB", (6000, 6000), (9, 99, 200)).save(tmp_path / "huge.png", compress_level=1)
    script = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from absence_plugins.data.pictures import read_picture
used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000
before = used()
with ThreadPoolExecutor(4) as threads:
    found = list(threads.map(lambda _: read_picture(Path(sys.argv[1]), side=64).getpixel((0, 0)), range(4)))
print(found == [(9, 99, 200)] * 4, used() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "huge.png")], capture_output=True, text=True, check=True
    )
    is_right, megabytes = done.stdout.split()
    assert is_right == "True"
    assert int(megabytes) < 260

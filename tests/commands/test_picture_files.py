"""Image files of every kind on their way through the commands: what the network sees, and what is said."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from absence_plugins.cli import app
from absence_plugins.commands.check import check_loaded
from absence_plugins.commands.explain import explain_images
from absence_plugins.commands.models import load_model
from absence_plugins.commands.preprocessing import Preprocessing
from absence_plugins.core import AbsenceWarning

SEE = Preprocessing(32, 3, (0.0,) * 3, (1.0,) * 3)


def test_the_network_sees_what_a_viewer_shows(tmp_path: Path) -> None:
    """The reproduction of F26."""
    bar = np.zeros((32, 32, 3), np.uint8)
    bar[:, :8] = 255
    turned = Image.Exif()
    turned[0x112] = 6
    Image.fromarray(bar).save(tmp_path / "phone.jpg", exif=turned, quality=95)
    assert SEE.picture(tmp_path / "phone.jpg")[:, :8].mean() > 0.95
    ramp = np.tile(np.linspace(0, 65535, 32, dtype=np.uint16), (32, 1))
    Image.fromarray(ramp).save(tmp_path / "scan.png")
    seen = SEE.picture(tmp_path / "scan.png")
    assert seen.mean().item() == pytest.approx(0.5, abs=0.01)
    assert seen.unique().numel() == 32
    icon = np.zeros((32, 32, 4), np.uint8)
    icon[8:24, 14:18, 3] = 255
    Image.fromarray(icon).save(tmp_path / "icon.png")
    assert SEE.picture(tmp_path / "icon.png").unique().tolist() == [0.0, 1.0]
    black = Preprocessing(32, 3, (0.0,) * 3, (1.0,) * 3, background=(0, 0, 0))
    assert black.picture(tmp_path / "icon.png").unique().tolist() == [0.0]


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_plain_pictures_become_the_same_input_as_before(tmp_path: Path, fit: str, interpolation: str) -> None:
    """Bit for bit what Pillow's convert and the same cut give."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 45, 3), dtype=np.uint8)
    for channels, mode in ((1, "L"), (3, "RGB")):
        made = Preprocessing(24, channels, (0.5,) * channels, (0.2,) * channels, 28, interpolation, fit)
        for name in ("a.png", "a.jpg", "g.png"):
            Image.fromarray(pixels if name[0] == "a" else pixels[..., 0]).save(tmp_path / name)
            with Image.open(tmp_path / name) as opened:
                assert torch.equal(made.picture(tmp_path / name), made.cut(opened.convert(mode)))


def save_frames(path: Path) -> None:
    frames = [Image.new("L", (32, 32), level) for level in (200, 100, 0)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def test_explain_and_check_say_which_frame_is_taken(tmp_path: Path) -> None:
    loaded = load_model("digits")
    save_frames(tmp_path / "moving.gif")
    save_frames(tmp_path / "pages.tif")
    images = [tmp_path / "moving.gif", tmp_path / "pages.tif"]
    said = r"2 images have several frames or pages, of which the first is taken: moving\.gif \(3\), pages\.tif \(3\)"
    with pytest.warns(AbsenceWarning, match=said) as caught:
        explain_images(images, loaded, tmp_path / "page", progress=False)
    assert sum("several frames" in str(one.message) for one in caught) == 1
    assert "2 images have several frames" in (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    found = check_loaded(loaded, images[0], name="digits", budget=0.01)
    assert found.notes[-1] == "1 image has several frames or pages, of which the first is taken: moving.gif (3)."


def test_a_picture_of_many_pixels_is_one_line(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 12000, 12000, 1, 0, 0, 0, 0)
    (tmp_path / "big.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    with pytest.raises(ValueError, match=r"big\.png.*144,000,000 pixels") as caught:
        explain_images([tmp_path / "big.png"], load_model("digits"), tmp_path / "page", progress=False)
    assert "\n" not in str(caught.value)


def test_warnings_of_pillow_stay_off_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"
    Image.new("L", (32, 32), 90).save(tmp_path / "a.jpg", exif=exif)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["absence-plugins"])
    with pytest.warns(UserWarning, match="Corrupt EXIF data"):
        SEE.picture(tmp_path / "a.jpg")
    found = CliRunner().invoke(app, ["explain", "a.jpg", "--model", "digits", "--quiet", "--out", "page"])
    assert found.exit_code == 0, found.output
    assert "EXIF" not in found.output

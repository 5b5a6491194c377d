"""Where the report of a unit finds maps and pictures that it may not import: entry points."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest
from unit_subjects import explained, linear_maps

from absence_plugins.report.unit.plugins import GROUP, provider


def register(folder: Path, monkeypatch: pytest.MonkeyPatch, **points: str) -> None:
    """An installed package that registers these entry points, and no other is there."""
    info = folder / "somebody-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebody\nVersion: 1.0\n")
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    import importlib.metadata as metadata

    own = next(iter(metadata.distributions(path=[str(folder)]))).entry_points
    monkeypatch.setattr(
        "absence_plugins.report.unit.plugins.entry_points", lambda **wanted: metadata.EntryPoints(own).select(**wanted)
    )


def test_maps_and_pictures_are_found_as_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(tmp_path, monkeypatch, maps="unit_subjects:linear_maps", pictures="missing_host:draw")
    assert provider("maps", "auto") is linear_maps
    found = explained(0, maps="auto", pictures="auto")
    assert found.section("maps_low").ran
    pictures = found.section("pictures")
    assert not pictures.ran
    assert pictures.sentence.startswith('Not run: pip install "absence-plugins[lucent]" (No module named')


def test_without_any_registered_provider_the_page_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(tmp_path, monkeypatch)
    said = explained(0, maps="auto").section("maps_high").sentence  # captum is there: the package itself is not
    assert "absence_plugins is not installed as a package" in said
    assert "or pass maps=absence_plugins.commands.maps.unit.default_maps" in said
    monkeypatch.setattr("absence_plugins.report.unit.plugins.find_spec", lambda name: None)
    found = explained(0, maps="auto")
    assert 'pip install "absence-plugins[captum]", or pass maps=' in found.section("maps_high").sentence


def test_the_project_registers_its_own_maps_and_pictures() -> None:
    from importlib.metadata import EntryPoint

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    points = project["entry-points"][GROUP]
    assert set(points) == {"maps", "pictures", "changes"}
    for name, value in points.items():
        assert callable(EntryPoint(name, value, GROUP).load())

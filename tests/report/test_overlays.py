"""Maps of photographs: sums in cells and regions, the photograph under the map, outlines of the strongest half."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from torch import Tensor

from absence_plugins.core.explanation import Explanation
from absence_plugins.core.pooling import choose_resolution
from absence_plugins.report import Panel, draw_panel, panel_figure, row_figure, signed_figure
from absence_plugins.report.plots.palette import BLUES, REDS


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def photograph(rows: int = 70, columns: int = 98) -> Tensor:
    return torch.rand(3, rows, columns, generator=torch.Generator().manual_seed(3))


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def pixel(figure: Figure, row: float, column: float) -> list[int]:
    image = np.rint(np.asarray(imread(io.BytesIO(png(figure)))) * 255).astype(int)
    x, y = figure.axes[0].transData.transform((column, row))
    return list(image[image.shape[0] - 1 - int(y), int(x)][:3])


def texts(figure: Figure) -> str:
    return " ".join(text.get_text().replace("\n", " ") for text in figure.findobj(Text) if text.get_visible())


def outlines(axes: Axes) -> dict[str, bool]:
    """The colors of the outlines, and whether they are dashed; the white halos left out."""
    found = {}
    for lines in axes.collections:
        assert isinstance(lines, LineCollection)
        color = mpl.colors.to_hex(lines.get_colors()[0])  # type: ignore[index]
        if color != "#ffffff":
            found[color] = lines.get_linestyle()[0][1] is not None  # type: ignore[index]
    return found


@pytest.mark.parametrize("resolution", [1, 7, 14, 16, 33, 98, 500])
def test_a_complete_map_stays_complete_at_every_resolution(resolution: int) -> None:
    panel = Panel("signed", numbers(3, 70, 98), "map", resolution=resolution)
    assert panel.shown.shape == (-(-70 // resolution), -(-98 // resolution))
    assert panel.shown.dtype == torch.float64
    assert float(panel.shown.sum()) == pytest.approx(float(panel.data.double().sum()), abs=1e-9)
    drawn = np.asarray(panel_figure(panel).axes[0].images[0].get_array())
    assert drawn.shape == (70, 98)
    assert np.allclose(drawn[:: min(resolution, 70), :: min(resolution, 98)], panel.shown.numpy())
    assert np.abs(drawn).max() == pytest.approx(panel.range)


def test_a_map_with_regions_stays_complete_and_tells_their_sums() -> None:
    labels = (torch.arange(70)[:, None] // 9) * 40 + torch.arange(98)[None] // 20
    panel = Panel("signed", numbers(70, 98), "map", regions=labels)
    assert panel.shown.shape == (70, 98)
    assert float(panel.shown.sum()) == pytest.approx(float(panel.map.sum()), abs=1e-9)
    inside = labels == 41
    assert panel.totals[inside].tolist() == pytest.approx([float(panel.map[inside].sum())] * int(inside.sum()))
    assert panel.shown[inside].tolist() == pytest.approx([float(panel.map[inside].mean())] * int(inside.sum()))
    assert "Each region" in texts(panel_figure(panel))


def test_the_figure_states_the_resolution() -> None:
    said = texts(panel_figure(Panel("signed", numbers(70, 98), "map", resolution=16)))
    assert "Each square: the sum over 16 x 16 pixels." in said
    assert "square" not in texts(panel_figure(Panel("signed", numbers(70, 98), "map")))


def test_the_outline_holds_half_of_each_sign_and_no_cell_too_many() -> None:
    panel = Panel("signed", numbers(70, 98), "map", resolution=14, photograph=photograph())
    for where, sign in zip(panel.strongest(), (1, -1), strict=True):
        cells = where[::14, ::14]
        assert torch.equal(cells.repeat_interleave(14, 0).repeat_interleave(14, 1), where)
        magnitude = (sign * panel.shown).clamp(min=0)
        held = magnitude[cells]
        assert float(held.sum()) >= 0.5 * float(magnitude.sum())
        assert float(held.sum() - held.min()) < 0.5 * float(magnitude.sum())
        assert float(held.min()) >= float(magnitude[~cells].max())
    assert outlines(panel_figure(panel).axes[0]) == {REDS[4]: False, BLUES[4]: True}


@pytest.mark.parametrize(("weak", "is_outlined"), [(0.06, True), (0.04, False)])
def test_a_sign_with_next_to_no_evidence_is_told_and_not_outlined(weak: float, is_outlined: bool) -> None:
    data = torch.tensor([[0.5, 0.5 - weak, -weak]])
    panel = Panel("signed", data, "map", photograph=torch.rand(3, 1, 3))
    assert bool(panel.strongest()[1].any()) == is_outlined
    said = texts(panel_figure(panel))
    assert ("half of all red (solid), of all blue (dashed)" in said) == is_outlined
    assert ("Blue is 4.0% of the evidence." in said) == (not is_outlined)


def test_an_outline_runs_along_the_edges_of_its_cells() -> None:
    data = torch.zeros(80, 80)
    data[20, 45] = 1.0
    figure = panel_figure(Panel("signed", data, "map", resolution=10, photograph=photograph(80, 80)))
    line = figure.axes[0].collections[-1]
    assert isinstance(line, LineCollection)
    corners = np.concatenate(line.get_segments())
    assert corners.min(0).tolist() == pytest.approx([39.5, 19.5], abs=0.2)
    assert corners.max(0).tolist() == pytest.approx([49.5, 29.5], abs=0.2)
    assert outlines(figure.axes[0]) == {REDS[4]: False}


def test_regions_are_outlined_by_their_sums() -> None:
    labels = torch.zeros(8, 8, dtype=torch.long)
    labels[:, 1:] = 1
    labels[:4, 4:] = 2
    data = torch.zeros(8, 8)
    data[0, 0], data[5, 2], data[5, 3], data[0, 6] = 4.0, 3.0, 3.0, -1.0
    panel = Panel("signed", data, "map", regions=labels, photograph=photograph(8, 8))
    red, blue = panel.strongest()
    assert torch.equal(red, labels == 1)
    assert torch.equal(blue, labels == 2)


def test_zero_shows_the_photograph_in_gray_and_the_bar_says_so() -> None:
    picture = torch.tensor([1.0, 0.2, 0.1]).view(3, 1, 1).expand(3, 80, 80)
    data = torch.zeros(80, 80)
    data[5, 5], data[5, 75] = 2.0, -2.0
    figure = panel_figure(Panel("signed", data, "map", resolution=10, photograph=picture))
    red, green, blue = pixel(figure, 60, 40)
    assert red == green == blue
    assert 100 < red < 255
    strong = pixel(figure, 3, 3)
    assert strong[0] > max(strong[1:]) + 80
    strong = pixel(figure, 3, 76)
    assert strong[2] > max(strong[:2]) + 40
    assert "0: the photo" in texts(figure)
    assert "0: the photo" in texts(panel_figure(Panel("absence", data.abs(), "map", photograph=picture)))


def test_a_stronger_cell_hides_more_of_the_photograph() -> None:
    data = torch.tensor([[0.0, 1.0, 2.0, 4.0]])
    shown = panel_figure(Panel("signed", data, "map", photograph=torch.zeros(1, 1, 4))).axes[0].images[1].get_array()
    opacity = np.asarray(shown)[0, :, 3].tolist()
    assert opacity[0] == 0
    assert opacity == sorted(set(opacity))


def test_a_map_of_zeros_is_the_photograph_and_says_so() -> None:
    panel = Panel("signed", torch.zeros(70, 98), "map", resolution=7, photograph=photograph())
    figure = panel_figure(panel)
    assert not figure.axes[0].collections
    assert not np.asarray(figure.axes[0].images[1].get_array())[..., 3].any()
    assert "the map is 0 everywhere" in texts(figure)
    assert "Outlined" not in texts(figure)


def test_single_pixels_by_thousands_are_not_outlined() -> None:
    panel = Panel("signed", numbers(70, 98), "map", photograph=photograph())
    assert not panel_figure(panel).axes[0].collections
    assert "Outlined" not in texts(panel_figure(panel))


@pytest.mark.parametrize("side", [(224, 224), (126, 224), (224, 160)])
def test_photographs_are_drawn_at_320_pixels_a_side_and_more(side: tuple[int, int]) -> None:
    panel = Panel.over(photograph(*side), "signed", numbers(*side), "map")
    for labels in (True, False):
        box = panel_figure(panel, labels=labels).axes[0].get_window_extent()
        assert min(box.width, box.height) >= 320
    assert min(row_figure([panel, panel]).axes[0].get_window_extent().size) >= 320


def test_the_size_decides_what_is_drawn_over_an_image() -> None:
    digit = Panel.over(torch.rand(1, 28, 28), "signed", numbers(1, 28, 28), "map")
    assert (digit.resolution, digit.photograph) == (1, None)
    assert digit.underlay is not None
    photo = Panel.over(photograph(), "absence", numbers(70, 98).abs(), "map")
    assert (photo.resolution, photo.underlay) == (choose_resolution(70, 98), None)
    assert photo.photograph is not None
    assert Panel.over(photograph(), "signed", numbers(70, 98), "map", resolution=9).resolution == 9
    assert Panel.over(photograph(), "signed", numbers(14, 14), "map").photograph is None, "another size: in outline"
    assert Panel.over(torch.rand(5, 70, 98), "signed", numbers(70, 98), "map").photograph is None, "no color image"
    labels = torch.zeros(28, 28, dtype=torch.long)
    assert Panel.over(torch.rand(1, 28, 28), "signed", numbers(28, 28), "map", regions=labels).photograph is not None


def test_signed_figure_shows_a_photograph_in_cells() -> None:
    figure = signed_figure(numbers(1, 3, 70, 98), photograph()[None])
    assert "the sum over 5 x 5 pixels" in texts(figure)
    assert len(figure.axes[1].images) == 2
    assert "the sum over 35 x 35 pixels" in texts(signed_figure(numbers(70, 98), photograph(), resolution=35))


def test_an_explanation_gives_a_readable_title() -> None:
    from absence_plugins.core.choices import choose

    scores = torch.tensor([[1.0, 2.0, 0.0]])
    for word, names, title in (
        ("auto", ["cup", "espresso"], "What holds 'cup' down"),
        ("auto", None, "What holds logit 0 down"),
        ("margin", {1: "espresso"}, "What speaks for 'espresso' rather than logit 0"),
        ("negated", ["cup", "espresso"], "What holds 'espresso' down"),
        ("target", ["cup", "espresso"], "What raises 'espresso' or holds it down"),
        ("others", ["cup", "espresso"], "What holds all outputs but 'espresso' down"),
    ):
        chosen = choose(scores, 1, word)  # type: ignore[arg-type]
        maps = torch.zeros(1, 3, 4, 4)
        made = Explanation(maps, maps, maps, chosen.view, chosen.classes, None, scores[:, 0], None, None, None, chosen)
        assert made.title(0, names) == title  # type: ignore[arg-type]
        assert title in texts(signed_figure(made, names=names))  # type: ignore[arg-type]


def test_two_calls_draw_the_same_bits_and_change_nothing() -> None:
    import matplotlib.pyplot as plt

    data, picture = numbers(70, 98), photograph()
    kept = data.clone(), picture.clone()
    panel = Panel("signed", data, "map", "caption", resolution=14, photograph=picture)
    before, opened = dict(mpl.rcParams), plt.get_fignums()
    assert png(panel_figure(panel)) == png(panel_figure(panel))
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == opened
    assert torch.equal(data, kept[0])
    assert torch.equal(picture, kept[1])


@pytest.mark.parametrize("layout", [None, "constrained"])
def test_a_panel_is_drawn_into_axes_of_ones_own(layout: Any) -> None:
    panel = Panel(
        "signed", numbers(70, 98), "What holds 'cup' down", "a caption", resolution=14, photograph=photograph()
    )
    figure = Figure(figsize=(8, 4), layout=layout)
    left, right = figure.subplots(1, 2)
    draw_panel(left, panel)
    draw_panel(right, Panel("image", photograph(), "The image"), labels=False)
    png(figure)
    assert left.get_title(loc="left") == "What holds 'cup' down"
    assert right.get_title(loc="left") == ""
    box = left.get_window_extent()
    assert box.width / box.height == pytest.approx(98 / 70, rel=0.01)
    (bar,) = left.child_axes
    below = bar.get_window_extent()
    assert below.y1 < box.y0
    assert (below.x0, below.x1) == pytest.approx((box.x0, box.x1), abs=1)
    assert all(word in texts(figure) for word in ("a caption", "0: the photo", "14 x 14", "raises the output"))
    alone = panel_figure(panel).axes[0]
    for one, other in zip(left.images, alone.images, strict=True):
        assert np.array_equal(np.asarray(one.get_array()), np.asarray(other.get_array()))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"photograph": torch.rand(3, 8, 9)}, ValueError, r"photograph of 'map 7' has 8 x 9 pixels, the map 8 x 8"),
        ({"photograph": torch.rand(2, 8, 8)}, ValueError, "photograph of 'map 7' has 2 channels"),
        ({"photograph": torch.full((3, 8, 8), 3.0)}, ValueError, "from 3 to 3; undo the input normalization"),
        ({"photograph": torch.full((3, 8, 8), float("nan"))}, ValueError, "192 values that are NaN or infinite"),
        ({"photograph": np.zeros((3, 8, 8))}, TypeError, "photograph of 'map 7' is ndarray"),
        ({"photograph": torch.rand(8, 8), "underlay": torch.rand(8, 8)}, ValueError, "a photograph and an underlay"),
        ({"data": torch.full((8, 8), float("nan")), "resolution": 4}, ValueError, "64 values that are NaN"),
        ({"resolution": 0}, ValueError, "cell of 0 pixels"),
        ({"resolution": 2.5}, TypeError, "cell of 2.5 pixels is a float"),
        ({"regions": torch.zeros(8, 8)}, TypeError, "float32; pass integer labels"),
        ({"regions": np.zeros((8, 8))}, TypeError, "regions of 'map 7' is ndarray"),
        ({"regions": torch.zeros(4, 8, dtype=torch.long)}, ValueError, r"shape \(4, 8\), the map \(8, 8\)"),
        ({"regions": torch.zeros(8, 8, dtype=torch.long), "resolution": 2}, ValueError, "regions and resolution=2"),
        ({"kind": "image", "resolution": 2}, ValueError, "'map 7' has resolution=2; only maps"),
        ({"kind": "image", "photograph": torch.rand(3, 8, 8)}, ValueError, "has a photograph; only maps"),
    ],
)
def test_what_does_not_fit_the_map_is_rejected(change: dict[str, Any], error: type[Exception], message: str) -> None:
    good: dict[str, Any] = {"kind": "signed", "data": torch.rand(8, 8), "title": "map 7"}
    Panel(**good)
    with pytest.raises(error, match=message):
        Panel(**{**good, **change})

"""Figures of kinds of data, read back: bars are R, tokens have their color, slices go through the strongest voxel."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import matplotlib.colors
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text
from torch import Tensor

from absence_plugins import Column, Explanation, SignalKind, TableKind, TextKind, VolumeKind
from absence_plugins.core.kinds import Kind
from absence_plugins.methods.texts import explain_text
from absence_plugins.relevance import relevance
from absence_plugins.report import (
    kind_figure,
    segmentation_figure,
    signal_figure,
    signed_figure,
    table_figure,
    text_figure,
    volume_figure,
)
from absence_plugins.report.pages.kinds import KindRow

COLUMNS = (
    Column("age", mean=40.0, std=10.0, unit="years"),
    Column("color", ("red", "blue")),
    Column("pulse"),
)
TABLE = TableKind(COLUMNS)
ROW, REFERENCE = torch.tensor([-1.0, 1.0, 0.0, 2.0]), torch.tensor([[0.5, 0.0, 1.0, 2.0]] * 2)
WORDS = {0: "[PAD]", 1: "this", 2: "is", 3: "not", 4: "good", 5: "שלום", 6: "漢字", 7: "😀", 8: "<b>$x$</b>"}
TEXT = TextKind(WORDS, special=(0,))


def said(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


def widths(figure: Figure) -> list[float]:
    return [float(bar.get_width()) for bar in figure.axes[1].patches]  # type: ignore[attr-defined]


def boxes(figure: Figure) -> dict[str, Patch]:
    return {str(patch.get_gid()): patch for patch in figure.axes[0].patches}


def sign(patch: Patch) -> int:
    """+1 of red, -1 of blue, 0 of white or gray."""
    red, _, blue, _ = matplotlib.colors.to_rgba(patch.get_facecolor())
    return 0 if abs(red - blue) < 0.02 else 1 if red > blue else -1


def check_inside(figure: Figure) -> None:
    """No text leaves the figure, and no two overlap."""
    FigureCanvasAgg(figure).draw()
    outside = set()  # labels that are not drawn
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if not (axes.axison and low <= tick.get_loc() <= high):
                    outside |= {tick.label1, tick.label2}
    found = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    texts = [text for text in found if text not in outside]
    extents = [text.get_window_extent() for text in texts]
    whole = figure.bbox.padded(2)
    for i, box in enumerate(extents):
        assert whole.x0 <= box.x0 <= box.x1 <= whole.x1, texts[i]
        assert whole.y0 <= box.y0 <= box.y1 <= whole.y1, texts[i]
        for j, other in enumerate(extents[i + 1 :], i + 1):
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            down = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert across < 2 or down < 6, (texts[i], texts[j])  # of 240 per inch; line boxes include descenders


# -- Tables ------------------------------------------------------------------------------------------------------------


def test_bars_are_the_columns_relevance_strongest_first() -> None:
    figure = table_figure(TABLE, torch.tensor([0.5, 3.0, -1.0, -4.0]), ROW, REFERENCE)
    assert widths(figure) == pytest.approx([-4.0, 2.0, 0.5])  # of a category the sum over its entries
    colors = [sign(bar) for bar in figure.axes[1].patches]
    assert colors == [-1, 1, 1]
    lines = said(figure)
    assert {"30 years", "↓ below", "45 years", "red", "≠ other", "blue", "= same", "mean of 2 references"} <= set(lines)
    assert "All 3 columns sum to −1.5." in lines
    assert {"blue: holds the output down", "red: raises the output"} <= set(lines)


def test_values_stand_in_the_line_of_their_column() -> None:
    figure = table_figure(TABLE, torch.tensor([0.5, 3.0, -1.0, -4.0]), ROW, REFERENCE)
    places = {text.get_text(): text.get_position()[1] for text in figure.axes[0].texts}
    assert places["age"] == places["30 years"] == places["45 years"] == places["↓ below"]
    assert places["color"] == places["red"] == places["blue"] == places["≠ other"]
    assert places["pulse"] < places["color"] < places["age"]  # inches from the top: the strongest first


def test_a_scale_that_turns_a_column_around_is_read_in_its_own_unit() -> None:
    turned = TableKind((Column("depth", std=-2.0),))
    figure = table_figure(turned, torch.ones(1), torch.tensor([1.0]), torch.tensor([0.0]))
    assert {"−2", "↓ below"} <= set(said(figure))


def test_of_several_references_the_mean_and_the_most_frequent_category_are_shown() -> None:
    several = torch.tensor([[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 2.0], [2.0, 0.0, 1.0, 6.0]])
    lines = said(table_figure(TABLE, torch.ones(4), ROW, several))
    assert {"50 years", "blue (2 of 3)", "3", "mean of 3 references"} <= set(lines)


def test_without_a_reference_nothing_is_compared() -> None:
    lines = said(table_figure(TABLE, torch.ones(4), ROW))
    assert "30 years" in lines
    assert not {"reference", "↓ below", "≠ other", "= same"} & set(lines)


def test_500_columns_keep_their_sum() -> None:
    kind = TableKind(
        tuple(Column(f"feature {i} of a table with names that are too long for a figure") for i in range(500))
    )
    signed = torch.randn(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    figure = table_figure(kind, signed, torch.randn(500), torch.randn(500))
    found = widths(figure)
    assert len(found) == 21
    assert sum(found) == pytest.approx(float(signed.sum()))
    order = signed.abs().sort(descending=True).indices
    assert found[:20] == pytest.approx(signed[order[:20]].tolist())
    assert found[20] == pytest.approx(float(signed[order[20:]].sum()))
    lines = said(figure)
    assert "other 480 columns" in lines
    assert any(line.endswith(" each") and "…" not in line for line in lines)
    assert any(line.startswith("feature") and "…" in line and line.endswith("figure") for line in lines)
    check_inside(figure)
    assert max(figure.get_size_inches()) < 9


def test_names_of_columns_are_no_tex_and_may_be_of_any_script() -> None:
    kind = TableKind((Column("$x_1$"), Column("漢字の列"), Column("<b>\x07")))
    figure = table_figure(kind, torch.ones(3), torch.ones(3), torch.zeros(3))
    FigureCanvasAgg(figure).draw()
    assert {"$x_1$", "漢字の列"} <= set(said(figure)) or {"$x_1$"} <= set(said(figure))
    assert not any("\x07" in line for line in said(figure))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((torch.ones(3), ROW, None), "the map has shape"),
        ((torch.ones(5), torch.ones(5), None), "4 entries"),
        ((torch.ones(4), ROW, torch.ones(3)), "reference has shape"),
        ((torch.full((4,), torch.nan), ROW, None), "4 values that are NaN"),
    ],
)
def test_rows_that_do_not_fit_are_rejected(given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table_figure(TABLE, *given)
    with pytest.raises(ValueError, match="most=0"):
        table_figure(TABLE, torch.ones(4), ROW, most=0)


# -- Texts -------------------------------------------------------------------------------------------------------------


def test_tokens_are_red_and_blue_by_their_sign_and_special_ones_gray() -> None:
    signed = torch.tensor([0.5, 0.0, -1.0, 9.0])
    found = boxes(text_figure(TEXT, signed, torch.tensor([1, 2, 4, 0])))
    assert [sign(found[f"text-{i}"]) for i in range(4)] == [1, 0, -1, 0]
    assert matplotlib.colors.to_hex(found["text-1"].get_facecolor()) == "#ffffff"


def test_what_the_text_lacks_is_outlined_in_the_reference() -> None:
    ids, other = torch.tensor([1, 2, 4, 0]), torch.tensor([1, 2, 3, 4])
    figure = text_figure(
        TEXT,
        torch.tensor([0.0, 0.0, -1.0, 0.0]),
        ids,
        other,
        pairs=[(0, 0), (1, 1), (2, 3)],
        reference_signed=torch.tensor([0.0, 0.0, 2.0, 7.0]),
    )
    found = boxes(figure)
    assert sign(found["reference-2"]) == 1
    assert [sign(found[f"reference-{i}"]) for i in (0, 1, 3)] == [0, 0, 0]  # the text has these too
    outlined = [name for name, box in found.items() if box.get_linewidth() > 0]
    assert outlined == ["reference-2"]
    middles = {name: box.get_x() + box.get_width() / 2 for name, box in found.items()}  # type: ignore[attr-defined]
    assert middles["text-2"] == pytest.approx(middles["reference-3"])
    assert any("Outlined" in line for line in said(figure))
    assert "All of R sums to +1." in said(figure)


def test_a_missing_token_has_the_color_of_its_place() -> None:
    found = boxes(text_figure(TEXT, torch.tensor([0.0, -2.0, 1.0]), torch.tensor([1, 4, 0]), torch.tensor([1, 3, 3])))
    assert [sign(found[name]) for name in ("text-1", "reference-1", "reference-2")] == [-1, -1, 1]
    assert sign(found["text-2"]) == 0


def test_maps_at_the_embedding_are_summed_with_their_signs() -> None:
    signed = torch.tensor([[3.0, -4.0], [1.0, -1.0], [2.0, 2.0]])
    found = boxes(text_figure(TEXT, signed, torch.tensor([1, 2, 4])))
    assert [sign(found[f"text-{i}"]) for i in range(3)] == [-1, 0, 1]


def test_any_script_is_shown_and_no_token_is_tex() -> None:
    figure = text_figure(TEXT, torch.ones(4), torch.tensor([5, 6, 7, 8]))
    FigureCanvasAgg(figure).draw()
    lines = said(figure)
    assert "<b>$x$</b>" in lines
    assert len(boxes(figure)) == 4
    check_inside(figure)


def test_text_from_right_to_left_begins_on_the_right() -> None:
    kind = TextKind({0: "הסרט", 1: "טוב"})
    found = boxes(text_figure(kind, torch.ones(2), torch.tensor([0, 1])))
    assert found["text-0"].get_x() > found["text-1"].get_x()  # type: ignore[attr-defined]
    found = boxes(text_figure(TEXT, torch.ones(2), torch.tensor([1, 2])))
    assert found["text-0"].get_x() < found["text-1"].get_x()  # type: ignore[attr-defined]


def test_512_tokens_show_passages_and_the_sum_of_what_is_left_out() -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 5, (512,), generator=generator)
    signed = 0.01 * torch.randn(512, generator=generator, dtype=torch.float64)
    signed[[100, 300]] = torch.tensor([2.0, -3.0], dtype=torch.float64)
    other = ids.clone()
    other[300] = 8
    figure = text_figure(TEXT, signed, ids, other)
    found = boxes(figure)
    places = {int(name.removeprefix("text-")) for name in found if name.startswith("text-")}
    assert {100, 300, 95, 305} <= places
    assert 100 < len(places) <= 160 + 2 * 30  # gaps of one or two tokens are filled
    lines = said(figure)
    left_out = [int(line.split()[1]) for line in lines if line.endswith("tokens …")]
    assert sum(left_out) == 512 - len(places)
    sums = [float(line.removeprefix("sum ").replace("−", "-")) for line in lines if line.startswith("sum ")]
    expected = float(signed[[place for place in range(512) if place not in places]].sum())
    assert sum(sums) == pytest.approx(expected, abs=0.005 * len(sums))
    assert max(figure.get_size_inches()) < 9
    assert "All of R sums to " in "\n".join(lines)
    whole = text_figure(TEXT, signed, ids, most=None)
    assert len(boxes(whole)) == 512


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"signed": torch.ones(4)}, "for 3 tokens"),
        ({"pairs": [(0, 0), (2, 1), (1, 2)]}, "does not fit texts"),
        ({"pairs": [(0, 9)]}, "does not fit texts"),
        ({"reference_ids": None, "pairs": [(0, 0)]}, "pass reference_ids"),
    ],
)
def test_texts_that_do_not_fit_are_rejected(change: dict[str, Any], message: str) -> None:
    ids = torch.tensor([1, 2, 4])
    given = {"signed": torch.ones(3), "ids": ids, "reference_ids": ids, **change}
    with pytest.raises(ValueError, match=message):
        text_figure(TEXT, **given)
    with pytest.raises(TypeError, match="token ids"):
        text_figure(TEXT, torch.ones(3), torch.ones(3))


# -- Signals -----------------------------------------------------------------------------------------------------------


def test_a_signal_has_its_line_its_reference_and_colored_spans() -> None:
    signed = torch.tensor([[0.0, 2.0, 0.0], [-1.0, 0.0, 0.0]])
    x, reference = torch.arange(6.0).view(2, 3), torch.zeros(4, 2, 3)
    reference[0] = 4.0
    figure = signal_figure(SignalKind(rate=10.0, channels=("left", "right"), unit="mV"), signed, x, reference)
    first, second = figure.axes[:2]
    for axes, own, line in ((first, signed[0], x[0]), (second, signed[1], x[1])):
        np.testing.assert_allclose(axes.images[0].get_array(), own[None])
        assert axes.images[0].get_clim() == (-2.0, 2.0)  # one range for all channels
        gray, dark = axes.lines
        np.testing.assert_allclose(dark.get_ydata(), line)
        np.testing.assert_allclose(gray.get_ydata(), [1.0, 1.0, 1.0])  # the mean of four
        np.testing.assert_allclose(dark.get_xdata(), [0.0, 100.0, 200.0])
    assert second.get_xlabel() == "time (ms)"
    lines = said(figure)
    assert {"left (mV)", "right (mV)"} <= set(lines)
    assert any("mean of 4 references" in line for line in lines)
    assert "All of R sums to +1." in lines


@pytest.mark.parametrize(
    ("rate", "length", "axis"),
    [
        (None, 10, "sample"),
        (1000.0, 10, "time (ms)"),
        (2.0, 100, "time (s)"),
        (1.0, 4000, "time (min)"),
        (0.01, 4000, "time (h)"),
    ],
)
def test_the_axis_of_time_has_a_unit_that_suits(rate: float | None, length: int, axis: str) -> None:
    figure = signal_figure(SignalKind(rate=rate), torch.ones(length), torch.zeros(length))
    assert figure.axes[0].get_xlabel() == axis


def test_nothing_strong_disappears_from_a_long_signal() -> None:
    signed, x = torch.zeros(100_000), torch.zeros(100_000)
    signed[43_210], signed[43_300], x[70_000], x[12_345] = -3.0, 1.0, 5.0, -7.0
    figure = signal_figure(SignalKind(rate=16_000.0), signed, x, curve=True)
    colors = np.asarray(figure.axes[0].images[0].get_array())
    assert colors.shape == (1, 800)
    assert colors.min() == -3.0
    assert colors.max() == 1.0
    assert int(colors.argmin()) == 43_210 * 800 // 100_000
    line = np.asarray(figure.axes[0].lines[0].get_ydata())
    assert (line.min(), line.max()) == (-7.0, 5.0)
    where = float(figure.axes[0].lines[0].get_xdata()[line.argmax()])  # type: ignore[index]
    assert where == pytest.approx(70_000 / 16_000, abs=0.01)
    assert any("800 columns" in text for text in said(figure))


def test_of_many_channels_the_strongest_are_shown_and_the_rest_is_counted() -> None:
    signed = torch.zeros(20, 5)
    signed[:, 0] = torch.arange(20.0)
    figure = signal_figure(SignalKind(), signed, torch.zeros(20, 5))
    lines = said(figure)
    assert {f"channel {i}" for i in range(8, 20)} <= set(lines)
    assert "channel 7" not in lines
    assert any("8 weaker channels" in line and "+28" in line for line in lines)
    check_inside(figure)


# -- Volumes -----------------------------------------------------------------------------------------------------------


def test_slices_go_through_the_strongest_voxel() -> None:
    generator = torch.Generator().manual_seed(0)
    signed = torch.rand(2, 4, 5, 6, generator=generator)
    signed[:, 3, 1, 4] = -2.0
    x, references = torch.rand(2, 4, 5, 6), torch.rand(3, 2, 4, 5, 6)
    figure = volume_figure(VolumeKind(spacing=(2.0, 1.0, 0.5)), signed, x, references)
    total = signed.sum(0)
    assert [axes.get_title(loc="left") for axes in figure.axes[:3]] == [
        "depth 3 of 4 (6 mm)", "height 1 of 5 (1 mm)", "width 4 of 6 (2 mm)",
    ]  # fmt: skip
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes[:9]]
    for row, volume in enumerate((x.mean(0), references.mean(0).mean(0), total)):
        for slice_, expected in zip(shown[3 * row :], (volume[3], volume[:, 1], volume[:, :, 4]), strict=False):
            np.testing.assert_allclose(slice_, expected, rtol=1e-6)
    assert figure.axes[6].images[0].get_clim() == (-4.0, 4.0)
    sizes = [axes.get_window_extent() for axes in figure.axes[:3]]
    assert sizes[0].height / sizes[0].width == pytest.approx(5.0 / 3.0, rel=1e-3)  # height x width in mm
    assert sizes[1].height / sizes[1].width == pytest.approx(8.0 / 3.0, rel=1e-3)
    assert sizes[2].height / sizes[2].width == pytest.approx(8.0 / 5.0, rel=1e-3)
    assert any("R = −4" in line for line in said(figure))


def test_a_cross_marks_the_voxel_in_every_slice() -> None:
    signed = torch.zeros(20, 30, 40)
    signed[4, 10, 33] = 1.0
    figure = volume_figure(VolumeKind(), signed, torch.zeros(20, 30, 40))
    for axes, (down, across) in zip(figure.axes[:3], ((10, 33), (4, 33), (4, 10)), strict=True):
        ends = [np.asarray(line.get_xydata()) for line in axes.lines]  # (across, down) of both ends
        rows = {float(one[0, 1]) for one in ends if one[0, 1] == one[1, 1]}
        columns = {float(one[0, 0]) for one in ends if one[0, 0] == one[1, 0]}
        assert (rows, columns) == ({float(down)}, {float(across)})
    check_inside(figure)


# -- Segmentation ------------------------------------------------------------------------------------------------------


def test_the_asked_region_is_outlined_in_image_and_map() -> None:
    asked = torch.zeros(32, 32, dtype=torch.bool)
    asked[4:20, 6:16] = True
    figure = segmentation_figure(torch.randn(3, 32, 32), torch.rand(3, 32, 32), asked, region="the stroke")
    for axes in figure.axes[:2]:
        lines = [path.vertices for line in axes.collections for path in line.get_paths() if len(path.vertices) > 4]
        corners = np.concatenate([np.asarray(line) for line in lines[-1:]])
        assert corners.min(0).tolist() == pytest.approx([5.5, 3.5], abs=0.2)
        assert corners.max(0).tolist() == pytest.approx([15.5, 19.5], abs=0.2)
    assert any("Outlined: the stroke, 160 pixels." in line for line in " ".join(said(figure)).split("|"))


def test_a_pixel_is_marked_by_a_cross() -> None:
    asked = torch.zeros(32, 32, dtype=torch.bool)
    asked[10, 20] = True
    figure = segmentation_figure(torch.randn(32, 32), torch.rand(32, 32), asked, region="the pixel")
    for axes in figure.axes[:2]:
        points = np.concatenate([np.stack([line.get_xdata(), line.get_ydata()], 1) for line in axes.lines])
        assert points.mean(0).tolist() == pytest.approx([20.0, 10.0])
    assert "Cross: the pixel." in said(figure)


def test_a_region_of_another_size_is_rejected() -> None:
    with pytest.raises(ValueError, match="asked has shape"):
        segmentation_figure(torch.ones(8, 8), torch.ones(8, 8), torch.ones(4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="False everywhere"):
        segmentation_figure(torch.ones(8, 8), torch.ones(8, 8), torch.zeros(8, 8, dtype=torch.bool))
    with pytest.raises(TypeError, match="boolean mask"):
        segmentation_figure(torch.ones(8, 8), torch.ones(8, 8), torch.ones(8, 8))


# -- The one that fits -------------------------------------------------------------------------------------------------

SAMPLES: dict[str, tuple[Kind, Tensor, Tensor, Tensor]] = {
    "table": (TABLE, torch.tensor([0.5, 3.0, -1.0, -4.0]), ROW, REFERENCE[0]),
    "text": (TEXT, torch.tensor([1.0, -2.0]), torch.tensor([1, 4]), torch.tensor([1, 3])),
    "signal": (SignalKind(), torch.tensor([1.0, -2.0]), torch.zeros(2), torch.ones(2)),
    "volume": (VolumeKind(), torch.randn(2, 3, 4), torch.zeros(2, 3, 4), torch.ones(2, 3, 4)),
}
FIGURES: dict[str, Any] = {"table": table_figure, "text": text_figure, "signal": signal_figure, "volume": volume_figure}


def pixels(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=60)
    return buffer.getvalue()


@pytest.mark.parametrize("name", SAMPLES)
def test_the_figure_of_a_kind_is_its_own(name: str) -> None:
    before = plt.get_fignums(), dict(plt.rcParams)
    kind, signed, x, reference = SAMPLES[name]
    chosen = kind_figure(kind, signed, x, reference, title="title", positive="raises it", negative="holds it")
    words = {"title": "title", "positive": "raises it", "negative": "holds it"}
    own = FIGURES[name](kind, signed, x, reference, **words)
    assert pixels(chosen) == pixels(own)
    written = " ".join(said(chosen))
    assert all(word in written for word in words.values())
    assert (plt.get_fignums(), dict(plt.rcParams)) == before
    check_inside(chosen)


@pytest.mark.parametrize("name", SAMPLES)
def test_an_explanation_draws_the_figure_of_its_kind(name: str) -> None:
    kind, signed, x, reference = SAMPLES[name]
    maps, inputs, references = torch.stack([signed * 0, signed]), torch.stack([x, x]), torch.stack([reference] * 4)
    found = Explanation(
        maps, maps.clamp(min=0), maps * 0, "target", None, None, torch.ones(2), None, None, None,
        kind=kind, inputs=inputs, references=references.view(2, 2, *x.shape),
    )  # fmt: skip
    words = dict(zip(("title", "positive", "negative"), (found.title(1), *found.legend(1)), strict=True))
    expected = kind_figure(kind, signed, x, torch.stack([reference] * 2), **words)
    assert pixels(found.figure(sample=1)) == pixels(expected)
    host = Figure()
    assert found.figure(host.subplots(), sample=1) is host
    if name != "text":
        with pytest.raises(ValueError, match="kind_figure"):
            signed_figure(found)


def test_a_map_of_a_layer_is_no_figure_of_the_kind() -> None:
    maps = torch.randn(1, 3, 5, 5)
    found = Explanation(
        maps, maps, maps, "target", None, None, torch.ones(1), None, None, None,
        kind=SignalKind(), inputs=torch.zeros(1, 100), references=torch.zeros(1, 2, 100),
    )  # fmt: skip
    assert found.figure().axes[0].images


@pytest.mark.parametrize("name", SAMPLES)
def test_a_saved_explanation_keeps_its_kind(name: str, tmp_path: Path) -> None:
    kind, signed, x, reference = SAMPLES[name]
    found = Explanation(
        signed[None], signed[None] * 0, signed[None] * 0, "target", None, None, torch.ones(1), None, None, None,
        kind=kind, inputs=x[None], references=reference[None, None],
    )  # fmt: skip
    again = Explanation.load(found.save(tmp_path))
    assert again.kind is not None
    assert again.kind.to_dict() == kind.to_dict()
    assert again.inputs is not None
    assert again.references is not None
    assert torch.equal(again.inputs, x[None])
    assert again.inputs.dtype == x.dtype
    assert torch.equal(again.references, reference[None, None])
    assert (tmp_path / "sample-0.png").is_file()
    assert pixels(again.figure()) == pixels(found.figure())


def test_an_explanation_of_the_former_format_is_read(tmp_path: Path) -> None:
    signed = torch.tensor([[1.0, -2.0]])
    folder = Explanation(signed, signed, signed, "target", None, None, torch.ones(1), None, None, None).save(tmp_path)
    path = folder / "explanation.json"
    saved = json.loads(path.read_text())
    del saved["kind"]
    for name in ("inputs", "references"):
        del saved["tensors"][name]
    path.write_text(json.dumps({**saved, "format": "absence_plugins.explanation/1"}))
    again = Explanation.load(folder)
    assert torch.equal(again.attribution, signed)
    assert (again.kind, again.inputs, again.references) == (None, None, None)
    path.write_text(json.dumps({**saved, "format": "absence_plugins.explanation/3"}))
    with pytest.raises(ValueError, match="explanation/3"):
        Explanation.load(folder)


def test_an_explained_text_shows_what_it_lacks() -> None:
    words = ["[PAD]", "the", "film", "is", "good", "not", "bad"]
    net = torch.nn.Sequential(torch.nn.Embedding(7, 1), torch.nn.Flatten(1), torch.nn.Linear(4, 1, bias=False)).eval()
    net[0].weight.data = torch.tensor([[0.0], [0.0], [0.5], [0.0], [2.0], [-3.0], [-1.0]])
    net[2].weight.data = torch.ones(1, 4)
    kind = TextKind(dict(enumerate(words)), special=(0,))
    # The model compares place by place: a place with another word is one replacement.
    others = [torch.tensor([1, 2, 5, 4]), torch.tensor([1, 2, 3, 6])]
    found = explain_text(net, kind, torch.tensor([1, 2, 3, 4]), others)
    figure = found.figure()
    boxed = boxes(figure)
    assert [name for name, box in boxed.items() if box.get_linewidth() > 0] == ["reference-2"]
    assert (sign(boxed["text-2"]), sign(boxed["reference-2"]), sign(boxed["text-3"])) == (1, 1, 0)
    lines = said(figure)
    assert "All of R sums to +3." in lines  # the replacement counts once
    assert "Reference 1 of 2." in lines
    boxed = boxes(found.figure(reference=1))
    assert [name for name, box in boxed.items() if box.get_linewidth() > 0] == ["reference-3"]
    with pytest.raises(ValueError, match="reference=2"):
        found.figure(reference=2)
    row = KindRow.of_text(found, reference=1)
    assert row.sentences[0].startswith("The text has 'good' where the reference has 'bad'")
    assert pixels(row.draw())


@pytest.mark.parametrize("several", [False, True])
def test_a_relevance_is_drawn_with_its_kind(several: bool) -> None:
    net = torch.nn.Linear(4, 1, bias=False)
    net.weight.data = torch.tensor([[1.0, 2.0, -1.0, 0.5]])
    x, reference = torch.stack([ROW * 0, ROW]), torch.stack([REFERENCE[0]] * 2)
    given = torch.stack([reference, reference]) if several else reference
    found = relevance(net, x, given)
    figure = found.figure(sample=1, kind=TABLE, inputs=x, reference=given)
    expected = net.weight.detach()[0] * (ROW - REFERENCE[0])
    sums = [float(expected[0]), float(expected[1] + expected[2]), float(expected[3])]
    assert widths(figure) == pytest.approx(sorted(sums, key=lambda value: -abs(value)))
    assert sum(widths(figure)) == pytest.approx(float(found.difference[0, 1]))
    with pytest.raises(TypeError, match="inputs is a NoneType"):
        found.figure(kind=TABLE)
    with pytest.raises(ValueError, match="without kind"):
        found.figure(inputs=x)
    with pytest.raises(ValueError, match="reference has shape"):
        found.figure(kind=TABLE, inputs=x, reference=ROW)


def test_what_is_no_image_is_refused_with_the_remedy() -> None:
    for shape in ((5,), (1, 1, 2, 3, 4)):
        with pytest.raises(ValueError, match="kind_figure"):
            signed_figure(torch.ones(*shape))
    with pytest.raises(TypeError, match="TableKind, TextKind, SignalKind or VolumeKind"):
        kind_figure("table", torch.ones(2), torch.ones(2))  # type: ignore[arg-type]
    for name, draw in FIGURES.items():
        other = SAMPLES["table" if name != "table" else "text"]
        with pytest.raises(TypeError, match="kind_figure"):
            draw(*other)

"""What a figure shows, read back from its pixels and its texts."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from absence_plugins.core.choices import choose
from absence_plugins.core.explanation import Explanation
from absence_plugins.report import Panel, panel_figure, row_figure, signed_figure


def pixels(figure: Figure) -> np.ndarray:
    """The figure as it would be saved, [H, W, 4] in 0..255."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    buffer.seek(0)
    return np.rint(np.asarray(imread(buffer)) * 255).astype(int)


def cell(figure: Figure, row: int, column: int, axes: int = 0) -> list[int]:
    """The color at the middle of a map's pixel."""
    image = pixels(figure)
    x, y = figure.axes[axes].transData.transform((column, row))
    return list(image[image.shape[0] - 1 - int(y), int(x)])


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in written(figure))


def written(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


WHITE = [255, 255, 255, 255]
MAP = torch.tensor([[0.0, 3.0, -3.0], [0.3, -0.3, 0.0], [0.0, 0.0, 1.0]])


def test_zero_is_exactly_white_plus_is_red_and_minus_is_blue() -> None:
    figure = panel_figure(Panel("signed", MAP, "map"))
    assert cell(figure, 0, 0) == WHITE
    for row, column in ((0, 1), (1, 0)):
        red, green, blue, _ = cell(figure, row, column)
        assert red > max(green, blue) + 8
    for row, column in ((0, 2), (1, 1)):
        red, green, blue, _ = cell(figure, row, column)
        assert blue > max(red, green) + 8


def test_colors_of_opposite_values_are_equally_strong() -> None:
    figure = panel_figure(Panel("signed", MAP, "map"))
    for plus, minus in (((0, 1), (0, 2)), ((1, 0), (1, 1))):
        assert abs(sum(cell(figure, *plus)) - sum(cell(figure, *minus))) < 60


@pytest.mark.parametrize("values", [[0.0, 5.0, -0.1], [0.0, 0.1, -5.0], [0.0, 2.0, 5.0]])
def test_the_range_is_symmetric_for_asymmetric_maps(values: list[float]) -> None:
    figure = panel_figure(Panel("signed", torch.tensor([values]), "map"))
    assert figure.axes[0].images[0].get_clim() == (-5.0, 5.0)
    assert figure.axes[1].images[0].get_clim() == (-5.0, 5.0)
    assert cell(figure, 0, 0) == WHITE
    assert "−5" in texts(figure)
    assert "+5" in texts(figure)


def test_a_map_of_zeros_is_white() -> None:
    figure = panel_figure(Panel("signed", torch.zeros(2, 2), "map"))
    assert cell(figure, 1, 1) == WHITE


def test_an_absence_map_goes_from_white_to_red_and_has_no_blue() -> None:
    figure = panel_figure(Panel("absence", torch.tensor([[0.0, 1.0, 4.0]]), "map"))
    assert cell(figure, 0, 0) == WHITE
    weak, strong = cell(figure, 0, 1), cell(figure, 0, 2)
    assert weak[0] > weak[2]
    assert strong[0] > strong[2]
    assert sum(strong) < sum(weak)
    bar = figure.axes[1].images[0]
    assert float(np.min(np.asarray(bar.get_array()))) == 0
    assert "−" not in texts(figure)


def test_channels_are_summed_with_their_signs() -> None:
    channels = torch.tensor([[[2.0, 1.0]], [[-2.0, -4.0]], [[0.0, 0.0]]])
    figure = panel_figure(Panel("signed", channels, "map"))
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), [[0.0, -3.0]])
    assert cell(figure, 0, 0) == WHITE


@pytest.mark.parametrize(
    ("data", "color"),
    [
        (torch.full((4, 4), 0.2), [51, 51, 51]),
        (torch.full((1, 4, 4), 0.2), [51, 51, 51]),
        (torch.tensor([1.0, 0.2, 0.4]).view(3, 1, 1).expand(3, 4, 4), [255, 51, 102]),
    ],
    ids=["HW", "1HW", "3HW"],
)
def test_pictures_keep_their_colors(data: torch.Tensor, color: list[int]) -> None:
    assert cell(panel_figure(Panel("image", data, "picture")), 1, 1)[:3] == color


def test_row_zero_is_at_the_top() -> None:
    figure = panel_figure(Panel("image", torch.tensor([[1.0, 1.0], [0.0, 0.0]]), "picture"))
    image = pixels(figure)
    x, y = figure.axes[0].transData.transform((0, 0))
    assert y > figure.axes[0].transData.transform((0, 1))[1]
    assert list(image[image.shape[0] - 1 - int(y), int(x)]) == WHITE


def test_the_color_bar_says_what_the_sign_means() -> None:
    panel = Panel("signed", MAP, "map", positive="raises logit 3", negative="holds logit 3 down")
    said = texts(panel_figure(panel)).replace("\n", " ")
    assert "raises logit 3" in said
    assert "holds logit 3 down" in said
    said = texts(panel_figure(Panel("signed", MAP, "map"))).replace("\n", " ")
    assert "raises the output" in said
    assert "holds the output down" in said
    assert "evidence of absence" in texts(panel_figure(Panel("absence", MAP.abs(), "m"))).replace("\n", " ")


def test_the_bar_says_where_values_are_cut_off() -> None:
    assert "≥" not in texts(panel_figure(Panel("signed", MAP, "map", limit=3.0)))
    above = texts(panel_figure(Panel("signed", MAP.clamp(min=-1), "map", limit=2.0)))
    assert "≥ +2" in above
    assert "≤" not in above
    assert "≤ −2" in texts(panel_figure(Panel("signed", MAP, "map"), limit=2.0))


def test_maps_of_a_row_have_their_own_range_unless_a_limit_is_given() -> None:
    panels = [Panel("signed", MAP, "a"), Panel("image", MAP.abs() / 3, "b"), Panel("signed", 2 * MAP, "c")]
    assert [a.images[0].get_clim()[1] for a in row_figure(panels).axes] == [3, 3, 1, 6, 6]
    assert [a.images[0].get_clim()[1] for a in row_figure(panels, limit=9.0).axes] == [9, 9, 1, 9, 9]


def test_labels_do_not_overlap() -> None:
    long = "a very long description that goes on, mixed4d_3x3_bottleneck_pre_relu_conv:0123456789"
    panel = Panel("signed", MAP, long, long, positive=long, negative=long)
    figure = row_figure([panel, Panel("image", MAP.abs() / 3, "short"), panel], title=long)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in written(figure)]
    boxes += [axes.get_window_extent() for axes in figure.axes]
    whole = figure.bbox.padded(1)
    for i, box in enumerate(boxes):
        assert whole.x0 <= box.x0
        assert box.x1 <= whole.x1
        assert whole.y0 <= box.y0
        assert box.y1 <= whole.y1
        for other in boxes[i + 1 :]:
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            down = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert across < 1 or down < 4  # pixels of 240 per inch; line boxes include descenders


def test_an_outline_leaves_zero_white() -> None:
    disc = ((torch.arange(16.0) - 8) ** 2 + (torch.arange(16.0)[:, None] - 8) ** 2 < 20).float()
    plain = panel_figure(Panel("signed", torch.zeros(16, 16), "map"))
    outlined = panel_figure(Panel("signed", torch.zeros(16, 16), "map", underlay=disc))
    assert cell(outlined, 8, 8) == WHITE
    assert cell(outlined, 0, 0) == WHITE
    changed = (pixels(outlined) != pixels(plain)).any(-1).mean()
    assert 0 < changed < 0.05


def test_a_constant_underlay_draws_no_outline(recwarn: pytest.WarningsRecorder) -> None:
    figure = panel_figure(Panel("signed", MAP, "map", underlay=torch.ones(3, 3)))
    assert not figure.axes[0].collections
    assert not recwarn.list


@pytest.mark.filterwarnings("error")
def test_signed_figure_takes_what_captum_returns() -> None:
    attribution = torch.zeros(1, 3, 4, 4, requires_grad=True)
    alone = signed_figure(attribution, positive="raises logit 3", negative="holds logit 3 down")
    assert len(alone.axes) == 2
    assert "raises logit 3" in texts(alone).replace("\n", " ")
    assert len(signed_figure(attribution, torch.rand(1, 3, 4, 4)).axes) == 3
    assert len(signed_figure(torch.zeros(4, 4), torch.rand(4, 4), title="t").axes) == 3
    with pytest.raises(ValueError, match=r"holds 2 samples.*attribution\[0\]"):
        signed_figure(torch.zeros(2, 3, 4, 4))
    with pytest.raises(TypeError, match="is a tuple"):
        signed_figure((torch.zeros(4, 4),))  # type: ignore[arg-type]


def test_signed_figure_takes_its_words_from_an_explanation() -> None:
    scores = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
    maps = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    for word, title, red, blue in (
        (
            "auto",
            "logit 0 (well), which is not the target 1 (ill)",
            "raises logit 0 (well)",
            "holds logit 0 (well) down",
        ),
        ("margin", "logit 1 (ill) minus logit 0 (well)", "speaks for logit 1 (ill)", "speaks for logit 0 (well)"),
    ):
        chosen = choose(scores, 1, word)  # type: ignore[arg-type]
        made = Explanation(maps, maps, maps, chosen.view, chosen.classes, None, scores[:, 0], None, None, None, chosen)
        drawn = signed_figure(made, torch.rand(2, 3, 4, 4), sample=1, names=["well", "ill"])
        said = texts(drawn).replace("\n", " ")
        assert all(words in said for words in (title, red, blue))
        assert "mine" in texts(signed_figure(made, title="mine"))
        limit = float(maps[1].sum(0).abs().max())
        assert drawn.axes[1].images[0].get_clim() == pytest.approx((-limit, limit))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_any_real_dtype_is_drawn(dtype: torch.dtype) -> None:
    figure = panel_figure(Panel("signed", torch.tensor([[1, -2]]).to(dtype), "map"))
    assert figure.axes[0].images[0].get_clim() == (-2, 2)


def test_titles_are_text_and_not_tex(recwarn: pytest.WarningsRecorder) -> None:
    panel = Panel("signed", MAP, r"$\frac{1$", positive="$a_{$", negative="100 %\t$$")
    assert r"$\frac{1$" in texts(panel_figure(panel))
    pixels(panel_figure(panel))
    assert not recwarn.list


def test_pyplot_and_settings_are_as_before_and_have_no_say() -> None:
    import matplotlib.pyplot as plt

    bare = pixels(panel_figure(Panel("signed", MAP, "map", "caption", underlay=MAP.abs())))
    numbers = plt.get_fignums()
    with mpl.rc_context():
        plt.style.use("dark_background")
        mpl.rcParams.update({"axes.grid": True, "font.size": 30, "image.origin": "lower", "image.cmap": "jet"})
        before = dict(mpl.rcParams)
        figure = panel_figure(Panel("signed", MAP, "map", "caption", underlay=MAP.abs()))
        assert dict(mpl.rcParams) == before
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", facecolor="white")
    buffer.seek(0)
    np.testing.assert_array_equal(np.rint(np.asarray(imread(buffer)) * 255).astype(int), bare)
    assert plt.get_fignums() == numbers


def test_the_data_are_left_as_they_were() -> None:
    data, before = MAP.clone().requires_grad_(), MAP.clone()
    panel_figure(Panel("signed", data, "map", underlay=data))
    assert torch.equal(data, before)
    assert data.grad is None


GOOD: dict[str, Any] = {"kind": "signed", "data": MAP, "title": "map 7"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "heatmap"}, "'heatmap'.*image, signed, absence"),
        ({"data": torch.tensor([[1.0, float("nan")]])}, "'map 7' has 1 values.*nan_to_num"),
        ({"data": torch.tensor([[float("inf"), 0.0]])}, "'map 7' has 1 values that are NaN or infinite"),
        ({"data": torch.zeros(5)}, r"shape \(5,\).*\[H, W\]"),
        ({"data": torch.zeros(2, 3, 4, 4)}, r"shape \(2, 3, 4, 4\).*one sample"),
        ({"data": torch.zeros(0, 4)}, r"shape \(0, 4\)"),
        ({"kind": "absence"}, r"negative value -3.*clamp\(min=0\)"),
        ({"kind": "image"}, "from -3 to 3; undo the input normalization"),
        ({"kind": "image", "data": torch.zeros(2, 4, 4)}, r"2 channels.*\[3, H, W\]"),
        ({"kind": "image", "data": MAP.abs() / 3, "underlay": MAP}, "underlay; only maps"),
        ({"underlay": torch.zeros(3)}, r"underlay of 'map 7' has shape \(3,\)"),
        ({"limit": 0.0}, "limit=0.0 must be above 0"),
        ({"limit": float("nan")}, "limit=nan"),
    ],
)
def test_bad_panels_are_refused_with_the_remedy(change: dict[str, Any], message: str) -> None:
    Panel(**GOOD)
    with pytest.raises(ValueError, match=message):
        Panel(**{**GOOD, **change})


@pytest.mark.parametrize("data", [np.zeros((2, 2)), [[0.0]], torch.zeros(2, 2, dtype=torch.complex64)])
def test_what_is_not_a_real_tensor_is_refused(data: Any) -> None:
    with pytest.raises(TypeError, match=r"data of 'map'.*torch\.Tensor"):
        Panel("signed", data, "map")


def test_figures_refuse_no_panels_and_bad_limits() -> None:
    with pytest.raises(ValueError, match="at least one panel"):
        row_figure([])
    with pytest.raises(ValueError, match="limit=-1"):
        panel_figure(Panel("signed", MAP, "map"), limit=-1)


def test_a_normalized_image_is_stretched_to_a_picture() -> None:
    picture = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(0))
    normalized = (picture - 0.45) / 0.22
    shown = signed_figure(torch.ones(6, 6), normalized).axes[0].images[0].get_array()
    stretched = (picture - picture.min()) / (picture.max() - picture.min())
    assert np.allclose(np.asarray(shown), stretched.permute(1, 2, 0).numpy(), atol=1 / 255)

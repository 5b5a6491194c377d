"""Texts in red and blue, from explanations, tensors and Captum's own records; references made of texts."""

from __future__ import annotations

import html.parser
import re
import sys
from typing import Any

import pytest
import torch
from captum import attr
from captum.attr._utils.visualization import VisualizationDataRecord
from test_captum_text import BAD, CLS, FILM, GOOD, IDS, KIND, NOT, PAD, THE, WAS, WORDS, Bag, references
from torch import Tensor, nn

import absence_plugins.captum as adapters
from absence_plugins import ReferenceSet, TextKind
from absence_plugins.captum import AbsenceTokenReferenceBase, text_record, visualization, visualize_text
from absence_plugins.core.signed_colors import blend_sign

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "a&b",
    "\u202egnp",
    "שלום",
    "猫",
    "🙂",
    " ",
    "\n",
]


class Reader(html.parser.HTMLParser):
    """The tokens of a page with their style, and which elements it has."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: set[str] = set()
        self.tokens: list[tuple[str, str, str]] = []
        self._open: tuple[str, str] | None = None
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.add(tag)
        if tag == "bdi":
            self._open = (dict(attrs)["style"], dict(attrs)["title"])

    def handle_endtag(self, tag: str) -> None:
        if tag == "bdi":
            self._open = None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._open:
            self.tokens.append((data, *self._open))


def background(style: str) -> tuple[int, int, int] | None:
    found = re.search(r"background-color:#(\w\w)(\w\w)(\w\w)", style)
    return None if found is None else tuple(int(part, 16) for part in found.groups())  # type: ignore[return-value]


# -- colors and escaping -----------------------------------------------------------------------------


def test_red_is_above_zero_blue_below_and_black_letters_are_read_on_both() -> None:
    record = text_record(torch.tensor([0.4, -0.8, 0.0, 0.1]), raw_input_ids=["good", "bad", "film", "was"])
    read = Reader(visualize_text([record]).data)
    colors = {token: background(style) for token, style, _ in read.tokens}
    good, bad, film, was = (colors[token] for token in ("good", "bad", "film", "was"))
    assert film == (255, 255, 255)
    assert good is not None
    assert bad is not None
    assert was is not None
    assert good[0] > good[2]
    assert bad[2] > bad[0]
    assert was[1] > good[1]  # paler
    for color in (blend_sign(1, steps=3), blend_sign(-1, steps=3)):
        channels = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        luminance = sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
        assert (luminance + 0.05) / 0.05 > 4.5
    assert "red (above 0) raises the explained output" in read.text
    assert "blue (below 0) holds the explained output down" in read.text
    assert "full color: 0.8" in read.text
    assert "red (above" not in visualize_text([record], legend=False).data


def test_hostile_and_foreign_tokens_are_escaped_and_shown() -> None:
    record = text_record(
        torch.ones(len(HOSTILE)),
        raw_input_ids=HOSTILE,
        true_class="<b>x</b>",
        pred_class="<i>",
        attr_class="<u>",
        pred_prob=0.5,
    )
    for records in ([record], [VisualizationDataRecord(torch.ones(9), 0.5, "<i>", "<b>", "<u>", 9.0, HOSTILE, 0.0)]):  # type: ignore[arg-type]
        read = Reader(visualize_text(records).data)
        assert read.elements == {"div", "span", "table", "thead", "tbody", "tr", "th", "td", "bdi"}
        shown = [token for token, _, _ in read.tokens]
        assert shown == [*HOSTILE[:3], "\\u202egnp", "שלום", "猫", "🙂", "\u2423", "\\n"]
    assert "<b>x</b>" in Reader(visualize_text([record]).data).text


def test_special_tokens_are_gray_and_their_share_of_the_sum_is_said() -> None:
    record = text_record(torch.tensor([0.5, 0.25, -0.5]), raw_input_ids=["[CLS]", "good", "bad"])
    read = Reader(visualize_text([record]).data)
    styles = {token: style for token, style, _ in read.tokens}
    assert background(styles["[CLS]"]) is None
    assert "color:#6e7781" in styles["[CLS]"]
    assert record.attr_score == 0.25
    assert "0.25(special tokens: +0.50)" in read.text
    assert "full color: 0.5;" in read.text
    own = text_record(torch.tensor([0.5, 0.25, -0.5]), raw_input_ids=["[CLS]", "good", "bad"], special=["good"])
    assert own.special == (False, True, False)
    by_place = text_record(torch.tensor([0.5, 0.25]), raw_input_ids=["a", "b"], special=[True, False])
    assert by_place.special == (True, False)


# -- from explanations -------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_a_record_of_an_explanation_shows_what_only_the_reference_has() -> None:
    net = Bag()
    found = adapters.AbsenceLayerIntegratedGradients(net, "embedding", reference=references(1)).explain(IDS, target=0)
    record = text_record(found, 0, names=["neg", "pos", "mixed"], true_class="neg", pred_class="pos", pred_prob=0.9)
    assert isinstance(record, VisualizationDataRecord)
    assert record.raw_input_ids == [WORDS[k] for k in IDS[0].tolist()]
    assert record.special == (True, False, False, False, False, True)
    assert torch.allclose(record.word_attributions, found.attribution[0].sum(-1))
    assert abs(record.attr_score - float(found.attribution[0].sum())) < 1e-12
    assert record.convergence_score == float(found.completeness_error[0])
    assert record.attr_class == "logit 0 (neg)"
    assert record.legend == ("raises logit 0 (neg)", "holds logit 0 (neg) down")
    other = found.references[0, 0].tolist()
    expected = [
        WORDS[r] if r != x and r not in (PAD, CLS) else None for x, r in zip(IDS[0].tolist(), other, strict=True)
    ]
    assert record.reference_tokens == expected
    assert torch.allclose(record.reference_attributions, found.per_reference[0, 0].sum(-1))
    read = Reader(visualize_text([record]).data)
    assert "only in the nearest reference: " in read.text
    missing = [token for token in expected if token]
    assert [token for token, _, _ in read.tokens][-len(missing) :] == missing
    assert "red (above 0) raises logit 0 (neg)" in read.text
    assert "pos (0.90)" in read.text


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["flat", "column", "sigmoid"])
def test_a_single_logit_is_predicted_by_its_sign(form: str) -> None:
    torch.manual_seed(0)

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(len(WORDS), 3), nn.Linear(3, 1)

        def forward(self, ids: Tensor) -> Tensor:
            logit = self.head(self.embedding(ids).sum(1))
            return {"flat": logit[:, 0], "column": logit, "sigmoid": logit.sigmoid()}[form]

    net = One().double().eval()
    mean = net.embedding(IDS).sum(1).mean(0, keepdim=True)
    net.head.bias.data = -(mean @ net.head.weight.T)[0].detach()  # one text on either side of zero
    logits = net.head(net.embedding(IDS).sum(1))[:, 0]
    found = adapters.AbsenceLayerIntegratedGradients(net, "embedding", reference=references(1)).explain(IDS)
    for sample in (0, 1):
        record = text_record(found, sample)
        logit = float(logits[sample])
        assert record.pred_class == int(logit > 0)
        assert abs(record.pred_prob - float(torch.tensor(abs(logit)).sigmoid())) < 1e-6
        assert record.attr_class == "the output"
    assert {int(one > 0) for one in logits} == {0, 1}
    assert text_record(found, 0, pred_class="good", pred_prob=0.6).pred_class == "good"


@pytest.mark.filterwarnings("ignore")
def test_several_embeddings_are_summed_per_token() -> None:
    net = Bag()
    other = nn.Embedding(len(WORDS), 5).double()

    def forward(ids: Tensor) -> Tensor:
        return net.head((net.embedding(ids) + other(ids)).sum(1))  # type: ignore[no-any-return]

    method = adapters.AbsenceLayerIntegratedGradients(forward, [net.embedding, other], reference=references(2))
    found = method.explain(IDS, target=0)
    record = text_record(found, 1)
    expected = sum(part[1].sum(-1) for part in found.attribution)
    assert torch.allclose(record.word_attributions, expected)
    assert abs(record.attr_score - float(found.output[1] - found.reference_output[1].mean())) < 1e-6


def test_what_cannot_be_shown_is_named() -> None:
    maps = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="the tokens are not known; pass raw_input_ids"):
        text_record(maps)
    with pytest.raises(ValueError, match="4 tokens for a map of 3"):
        text_record(maps, raw_input_ids=list("abcd"))
    with pytest.raises(ValueError, match="sample=2 is none of the 2 texts"):
        text_record(maps, 2, list("abc"))
    with pytest.raises(ValueError, match="NaN or infinite"):
        text_record(torch.tensor([float("nan")]), raw_input_ids=["a"])
    with pytest.raises(ValueError, match="NaN or infinite"):
        visualize_text([VisualizationDataRecord(torch.tensor([float("inf")]), 0.5, 1, 1, 1, 1.0, ["a"], 0.0)])
    with pytest.raises(ValueError, match="3 tokens for 1 attributions"):
        visualize_text([VisualizationDataRecord(torch.ones(1), 0.5, 1, 1, 1, 1.0, list("abc"), 0.0)])
    with pytest.raises(ValueError, match=r"is \[T\], \[B, T\] or \[B, T, D\], got \(1, 1, 1, 1\)"):
        text_record(torch.zeros(1, 1, 1, 1), raw_input_ids=["a"])
    with pytest.raises(ValueError, match="special names 1 places of 2 tokens"):
        text_record(torch.ones(2), raw_input_ids=["a", "b"], special=[True])


def test_one_scale_for_all_records_nothing_to_show_and_512_tokens() -> None:
    weak, strong = (text_record(torch.tensor([size]), raw_input_ids=["x"]) for size in (0.1, 1.0))
    styles = [style for _, style, _ in Reader(visualize_text([weak, strong]).data).tokens]
    assert styles[0] != styles[1]
    zero = text_record(torch.zeros(2), raw_input_ids=["a", "b"])
    assert {background(style) for _, style, _ in Reader(visualize_text([zero]).data).tokens} == {(255, 255, 255)}
    assert "<td" not in visualize_text([]).data
    long = text_record(torch.randn(512), raw_input_ids=[f"w{k}" for k in range(512)])
    assert len(Reader(visualize_text([long]).data).tokens) == 512


def test_captums_name_is_ours_and_its_figure_takes_our_records() -> None:
    from absence_plugins.captum.attr import visualization as swapped

    assert swapped.visualize_text is visualize_text
    assert visualization.visualize_timeseries_attr is attr.visualization.visualize_timeseries_attr
    record = text_record(torch.tensor([0.5]), raw_input_ids=["a"], pred_prob=0.5, pred_class=1)
    assert "a" in attr.visualization.visualize_text([record]).data
    with pytest.raises(AttributeError, match=r"nor has 'captum.attr.visualization'"):
        visualization.nothing  # noqa: B018
    page = visualize_text([record])
    assert page._repr_html_() == page.data
    assert "characters of HTML" in repr(page)


def test_in_a_notebook_the_page_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    notebook = type(sys)("IPython")
    notebook.get_ipython = lambda: object()  # type: ignore[attr-defined]
    display = type(sys)("IPython.display")
    display.display = shown.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    page = visualize_text([text_record(torch.tensor([0.5]), raw_input_ids=["a"])])
    assert shown == [page]


# -- references of texts -----------------------------------------------------------------------------


def encode(text: str) -> list[int]:
    return [WORDS.index(word) for word in text.split()]


def test_a_reference_of_padding_is_captums() -> None:
    ours, host = (cls(reference_token_idx=3) for cls in (AbsenceTokenReferenceBase, attr.TokenReferenceBase))
    assert isinstance(ours, attr.TokenReferenceBase)
    assert torch.equal(ours.generate_reference(5, device="cpu"), host.generate_reference(5, device="cpu"))


def test_texts_are_aligned_with_padding_in_the_gaps() -> None:
    reference = AbsenceTokenReferenceBase(PAD, encode, special=(CLS,))
    x = torch.tensor([[CLS, THE, FILM, WAS, GOOD, PAD], [CLS, THE, FILM, WAS, NOT, BAD]], dtype=torch.int32)
    own, other = reference.generate_aligned(x, ["[CLS] the film was not good", "[CLS] film was bad"])
    assert own.dtype == other.dtype == torch.int32
    assert own.tolist() == [[CLS, THE, FILM, WAS, PAD, GOOD], x[1].tolist()]
    assert other.tolist() == [[CLS, THE, FILM, WAS, NOT, GOOD], [CLS, PAD, FILM, WAS, PAD, BAD]]
    one, its = reference.generate_aligned(x[1], torch.tensor([CLS, FILM]))
    assert one.tolist() == x[1].tolist()
    assert its.tolist() == [CLS, PAD, FILM, PAD, PAD, PAD]
    same = reference.generate_aligned(x[:1], "[CLS] the film was good")
    assert same[1][0].tolist() == x[0].tolist()
    with pytest.raises(ValueError, match="2 references for 1 texts"):
        reference.generate_aligned(x[:1], ["good", "bad"])
    with pytest.raises(ValueError, match="there is no tokenizer; pass tokenizer="):
        AbsenceTokenReferenceBase(PAD).generate_aligned(x, "good")
    with pytest.raises(ValueError, match="texts are token ids"):
        reference.generate_aligned(x.float(), "good")


@pytest.mark.filterwarnings("ignore")
def test_an_aligned_reference_shows_the_missing_word_alone() -> None:
    net = Bag()
    reference = AbsenceTokenReferenceBase(PAD, encode, special=(CLS,))
    x = torch.tensor([[CLS, THE, FILM, WAS, GOOD]])
    own, other = reference.generate_aligned(x, "[CLS] the film was not good")
    lig = adapters.AbsenceLayerIntegratedGradients(net, net.embedding, nontarget="target")
    found = lig.attribute(own, other, target=0).sum(-1)
    expected = (net.embedding.weight[PAD] - net.embedding.weight[NOT]) @ net.head.weight[0]
    assert torch.allclose(found, torch.tensor([[0, 0, 0, 0, float(expected), 0]], dtype=torch.float64), atol=1e-8)
    shifted = lig.attribute(
        torch.tensor([[CLS, THE, FILM, WAS, GOOD, PAD]]),
        torch.tensor([encode("[CLS] the film was not good")]),
        target=0,
    )
    assert int((shifted.sum(-1).abs() > 1e-6).sum()) == 2  # by place alone two tokens seem to differ


def test_a_set_of_reference_texts() -> None:
    reference = AbsenceTokenReferenceBase(PAD, encode, special=(CLS,))
    found = reference.reference_set(["[CLS] good film", "[CLS] bad"], [0, 1], sequence_length=4, k=1)
    assert found.images[0].tolist() == [[CLS, GOOD, FILM, PAD], [CLS, BAD, PAD, PAD]]
    assert isinstance(found, ReferenceSet)
    assert isinstance(found.kind, TextKind)
    assert found.kind.special == (PAD, CLS)
    assert found.k == 1
    assert reference.reference_set(["good"], sequence_length=2, k=1, kind=KIND).kind is KIND
    with pytest.raises(ValueError, match="reference 0 has 3 tokens, and the explained texts have 2"):
        reference.reference_set(["the film was"], sequence_length=2)

    class Fast:
        def encode(self, text: str) -> Tensor:
            return torch.tensor([encode(text)])

    assert AbsenceTokenReferenceBase(PAD, Fast()).reference_set(["good"], sequence_length=1, k=1).images[
        0
    ].tolist() == [[GOOD]]

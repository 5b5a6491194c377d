"""Texts explained against reference texts: closed forms, exact sums on transformers, and what is refused."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from texts_nets import (
    BAD,
    CLS,
    FAMILIES,
    FILM,
    GOOD,
    HELD,
    KIND,
    NOT,
    PAD,
    PLAIN,
    SEP,
    Bag,
    Flip,
    Masked,
    Older,
    transformer,
)
from torch import Tensor, nn

from absence_plugins import TextKind
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.outputs import Logit, Margin
from absence_plugins.methods.texts import explain_nearest, explain_text
from absence_plugins.relevance import RelevanceError

X = [CLS, FILM, 9, GOOD, 11, SEP]
CASES = {
    "inserted": [CLS, FILM, 9, NOT, GOOD, 11, SEP],
    "deleted": [CLS, FILM, GOOD, 11, SEP],
    "replaced": [CLS, FILM, 9, BAD, 11, SEP],
    "other runs": [CLS, FILM, 9, 12, 13, 14, 11, SEP],
    "both": [CLS, NOT, FILM, GOOD, 11, 12, SEP],
    "only special": [CLS, SEP],
}


@pytest.fixture(autouse=True)
def quiet() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="reference .* the words have", category=AbsenceWarning)
        yield


def plain_values(model: nn.Module, ids: list[int]) -> Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0]


@pytest.mark.needs("transformers")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", [*FAMILIES, *HELD])
def test_the_sum_is_the_difference_of_the_two_texts_alone(family: str, case: str) -> None:
    model, r = transformer(family), CASES[case]
    found = explain_text(model, KIND, X, r, Margin(1, 0))
    u, other = (plain_values(model, ids) for ids in (X, r))
    assert found.output == pytest.approx(float(u[1] - u[0]), abs=1e-7)
    assert found.comparisons[0].output == pytest.approx(float(other[1] - other[0]), abs=1e-7)
    exact = 1e-6 if family in HELD else 1e-9  # some compute angles in float32
    assert found.comparisons[0].total == pytest.approx(float(u[1] - u[0] - other[1] + other[0]), abs=exact)
    assert float(found.completeness_error.abs().max()) < exact
    one = found.comparisons[0]
    for (i, j), value in zip(one.pairs, one.relevance.tolist(), strict=True):
        if i is not None and j is not None and X[i] == r[j]:
            assert value == 0  # what both texts have is no evidence
    assert found.present[0] == found.present[-1] == one.missing[0] == one.missing[-1] == 0


@pytest.mark.needs("transformers")
@pytest.mark.parametrize("family", FAMILIES)
def test_only_a_token_that_one_text_has_is_hidden(family: str) -> None:
    """Nothing but the inserted token has relevance; without positions it has all of the difference."""
    model = transformer(family)
    found = explain_text(model, KIND, X, CASES["inserted"], 1)
    assert found.comparisons[0].way == "gaps"
    assert [pair for pair in found.pairs if None in pair] == [(None, 3)]
    assert found.missing.nonzero().flatten().tolist() == [3]
    assert found.reference_tokens[3] == "not"
    with torch.no_grad():
        for module in model.modules():  # without positions nothing is moved
            if isinstance(module, nn.Embedding) and module.num_embeddings < 30:
                module.weight.fill_(0.1)
    found = explain_text(model, KIND, X, CASES["inserted"], 1)
    assert found.comparisons[0].moved == pytest.approx(0, abs=1e-12)
    u, other = plain_values(model, X)[1], plain_values(model, CASES["inserted"])[1]
    assert float(found.missing[3]) == pytest.approx(float(u - other), abs=1e-9)


@pytest.mark.needs("transformers")
def test_where_positions_are_angles_a_hidden_token_leaves_a_hole() -> None:
    """By a second writing: the text alone, with one position left out, has the value of the text with a hole."""
    model, r = transformer("llama"), CASES["inserted"]
    found = explain_text(model, KIND, X, r, 1)
    one = found.comparisons[0]
    with torch.no_grad():
        with_hole = model(input_ids=torch.tensor([X]), position_ids=torch.tensor([[0, 1, 2, 4, 5, 6]])).logits[0, 1]
    assert one.way == "holes"
    assert one.moved == pytest.approx(found.output - float(with_hole), abs=1e-6)
    assert float(one.missing[3]) == pytest.approx(float(with_hole) - one.output, abs=1e-6)
    assert one.missing.nonzero().flatten().tolist() == [3]


@pytest.mark.needs("transformers")
def test_exchanging_the_texts_changes_the_sign() -> None:
    model = transformer("bert")
    one = explain_text(model, KIND, X, CASES["both"], 1)
    other = explain_text(model, KIND, CASES["both"], X, 1)
    assert torch.allclose(one.present, -other.missing, atol=1e-12)
    assert torch.allclose(one.missing, -other.present, atol=1e-12)


def test_a_closed_form_of_a_bag_of_words() -> None:
    model = Bag()
    worth = (model.embedding.weight @ model.read.weight[0]).detach()
    found = explain_text(model, PLAIN, [FILM, GOOD], [FILM, NOT, GOOD])
    assert found.missing.tolist() == pytest.approx([0, -float(worth[NOT]), 0])
    assert found.present.tolist() == [0, 0]
    found = explain_text(model, PLAIN, [9, NOT, FILM, GOOD], [FILM, BAD, 8, 7, GOOD])
    assert found.present.tolist() == pytest.approx([float(worth[9]), float(worth[NOT]), 0, 0])
    assert found.missing.tolist() == pytest.approx([0, *(-float(worth[number]) for number in (BAD, 8, 7)), 0])
    assert found.comparisons[0].special == found.comparisons[0].moved == 0


@pytest.mark.parametrize("padded", [0, 3])
def test_a_closed_form_of_a_negation(padded: int) -> None:
    """ "good" is +1, "not good" -1: that "not" is missing raises the output by 2, at any place, padded or not."""
    model, end = Flip(), [PAD] * padded
    for x, r, place in (
        ([FILM, GOOD], [FILM, NOT, GOOD], 1),
        ([GOOD, FILM], [NOT, GOOD, FILM], 0),
        ([NOT, FILM, GOOD, 8], [NOT, FILM, NOT, GOOD, 8], 2),  # the same word elsewhere does not matter
        ([NOT, FILM, 9, GOOD], [NOT, FILM, NOT, GOOD], 2),
    ):
        found = explain_text(model, PLAIN, x + end, r + end)
        assert found.output - found.comparisons[0].output == 2
        expected = [2.0 * (number == place) for number in range(len(r) + padded)]
        assert found.missing.tolist() == pytest.approx(expected)
        assert found.words() == [
            "the text has 'w9' where the reference has 'not': raises the output by 2"
            if 9 in x
            else "the text lacks 'not', which the reference has: raises the output by 2"
        ]
        assert explain_text(model, PLAIN, r, x).words()[0].endswith("lowers the output by 2")


def test_what_a_standard_map_of_the_text_alone_shows() -> None:
    """Gradient times input of "film good" has nothing for a word that is not there, and +1 at "good"."""
    model = Flip()
    embedded = model.embedding(torch.tensor([[FILM, GOOD]])).detach().requires_grad_()
    x = nn.functional.pad(embedded.transpose(1, 2), (1, 0))
    good, negated = model.pairs(x).relu().unbind(1)
    (gradient,) = torch.autograd.grad((good - negated).sum(), embedded)
    assert (gradient * embedded).sum(-1).tolist() == [[0, 1]]


def test_a_mask_as_weights() -> None:
    model = Masked()
    found = explain_text(model, PLAIN, [FILM, GOOD, 9], [FILM, NOT, GOOD, 9, 8], "margin")
    with torch.no_grad():
        u, other = (
            model(torch.tensor([ids]), torch.ones(1, len(ids)))[0] for ids in ([FILM, GOOD, 9], [FILM, NOT, GOOD, 9, 8])
        )
    top = int(u.argmax())
    assert found.output == pytest.approx(float(u[top] - u[1 - top]))
    assert found.comparisons[0].way == "gaps"
    assert found.comparisons[0].total == pytest.approx(float((u - other)[top] - (u - other)[1 - top]), abs=1e-12)
    assert found.missing.nonzero().flatten().tolist() == [1, 4]


@pytest.mark.needs("transformers")
def test_a_compiled_model_is_read_as_it_was_written() -> None:
    model = transformer("bert")
    compiled = torch.compile(model)
    one, other = (explain_text(each, KIND, X, CASES["inserted"], 1) for each in (compiled, model))
    assert one.comparisons[0].way == "gaps"
    assert torch.equal(one.missing, other.missing)


def test_a_mask_as_older_models_take_it() -> None:
    model = Older()
    found = explain_text(model, KIND, X, CASES["both"], "margin")
    with torch.no_grad():
        u, other = (model(torch.tensor([i]), torch.ones(1, len(i)))[0] for i in (X, CASES["both"]))
    top = int(u.argmax())
    assert found.comparisons[0].way == "gaps"
    assert found.comparisons[0].total == pytest.approx(float((u - other)[top] - (u - other)[1 - top]), abs=1e-6)
    assert found.missing.nonzero().flatten().tolist() == [1, 5]
    assert found.present.nonzero().flatten().tolist() == [2]


@pytest.mark.needs("transformers")
def test_margins_combine_with_references() -> None:
    """Why this answer and not that one, compared with this text: the map of a margin is that of both logits apart."""
    model = transformer("bert", labels=3)
    one, two, both = (explain_text(model, KIND, X, CASES["inserted"], o) for o in (2, 0, Margin(2, 0)))
    assert torch.allclose(both.missing, one.missing - two.missing, atol=1e-12)
    assert both.explained_words() == "logit 2 minus logit 0"
    assert "logit 2 minus logit 0" in both.words()[0]
    negative = explain_text(model, KIND, X, CASES["inserted"], Logit(2, sign=-1))
    assert torch.allclose(negative.missing, -one.missing, atol=1e-12)


@pytest.mark.needs("transformers")
def test_several_references_are_each_compared_alone() -> None:
    model = transformer("distilbert")
    cases = [CASES["inserted"], CASES["replaced"], CASES["deleted"]]
    found = explain_text(model, KIND, X, cases, 0)
    alone = [explain_text(model, KIND, X, case, 0) for case in cases]
    assert torch.allclose(found.present, torch.stack([one.present for one in alone]).mean(0))
    for one, other in zip(found.comparisons, alone, strict=True):
        assert torch.equal(one.missing, other.missing)
    assert "3 references" in repr(found)


@pytest.mark.needs("transformers")
@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2"])
def test_padding_changes_nothing(family: str) -> None:
    model = transformer(family)
    r = CASES["inserted"]
    plain = explain_text(model, KIND, X, r, 1)
    padded = explain_text(model, KIND, [*X, PAD, PAD, PAD], torch.tensor([[*r, PAD]]), 1)
    assert torch.equal(plain.missing, padded.missing)
    assert padded.ids.tolist() == X


@pytest.mark.needs("transformers")
def test_the_same_text_has_no_evidence() -> None:
    found = explain_text(transformer("bert"), KIND, X, X, 1)
    assert found.words() == []
    assert float(found.present.abs().sum() + found.missing.abs().sum()) == 0
    assert found.table()


@pytest.mark.needs("transformers")
def test_the_model_stays_as_it_was() -> None:
    model = transformer("bert")
    model.classifier.weight.grad = torch.ones_like(model.classifier.weight)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random, x = torch.get_rng_state(), torch.tensor(X)
    explain_text(model, KIND, x, CASES["both"], 1)
    assert torch.equal(torch.get_rng_state(), random)
    assert x.tolist() == X
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.modules())
    assert model.classifier.weight.grad.eq(1).all()
    assert model.bert.embeddings.word_embeddings.weight.grad is None
    assert not any(one.training for one in model.modules())


@pytest.mark.needs("transformers")
def test_training_mode_is_refused_before_anything_else() -> None:
    model = transformer("bert").train()
    with pytest.raises(ValueError, match=r"is in training mode and draws at random.*call model.eval\(\)"):
        explain_text(model, None, None, None)
    with pytest.raises(ValueError, match=r"call model.eval\(\)"):
        explain_nearest(model, None, None, [], [])
    assert model.training


@pytest.mark.needs("transformers")
@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2"])
def test_a_text_that_is_too_long_is_refused_by_name(family: str) -> None:
    model = transformer(family, positions=24)
    limit = 23 if family == "roberta" else 24
    fits = [CLS, *[9] * (limit - 2), SEP]
    assert explain_text(model, KIND, fits, [CLS, *[9] * (limit - 3), NOT, SEP], 1).present.shape == (limit,)
    with pytest.raises(ValueError, match=rf"reference 0 has {limit + 5} tokens|looks up a token or a place"):
        explain_text(model, KIND, fits, [CLS, *[9] * (limit + 3), SEP], 1)
    with pytest.raises(ValueError, match=r"the text has|looks up a token or a place"):
        explain_text(model, KIND, [CLS, *[9] * (limit + 1), SEP], fits, 1)


@pytest.mark.needs("transformers")
def test_what_cannot_be_explained_is_refused_with_the_remedy() -> None:
    model = transformer("bert")
    with pytest.raises(ValueError, match="output=2 does not exist: the model has 2 outputs"):
        explain_text(model, KIND, X, X, 2)
    with pytest.raises(TypeError, match="class index, an Output"):
        explain_text(model, KIND, X, X, 1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="margin"):
        explain_text(model, KIND, X, X, "runner")
    with pytest.raises(ValueError, match="single output"):
        explain_text(Bag(), PLAIN, [GOOD], [BAD], "margin")
    with pytest.raises(ValueError, match="no reference texts"):
        explain_text(model, KIND, X, [])
    with pytest.raises(ValueError, match="has no tokens"):
        explain_text(model, KIND, X, torch.tensor([], dtype=torch.long))
    with pytest.raises(ValueError, match="looks up a token"):
        explain_text(model, KIND, [CLS, 99, SEP], X)

    class Hot(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            return nn.functional.one_hot(ids, 30).double().sum((1, 2), keepdim=True)[:, 0]

    with pytest.raises(RelevanceError):
        explain_text(Hot().eval(), PLAIN, [GOOD], [BAD])


@pytest.mark.needs("transformers")
def test_what_cannot_be_hidden_is_refused_and_replacements_are_not() -> None:
    """DeBERTa compares its mask, BART reads every token at two places."""
    hf = pytest.importorskip("transformers", minversion="5.0")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    deberta = hf.DebertaV2ForSequenceClassification(hf.DebertaV2Config(vocab_size=30, **small)).double().eval()
    with pytest.raises(RelevanceError, match="or pass a reference with as many tokens"):
        explain_text(deberta, KIND, X, CASES["inserted"], 1)
    found = explain_text(deberta, KIND, X, CASES["replaced"], 1)
    assert float(found.completeness_error.abs().max()) < 1e-9
    bart = hf.BartConfig(vocab_size=30, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16)
    with pytest.raises(ValueError, match="pass a classifier without decoder"):
        explain_text(hf.BartForSequenceClassification(bart).eval(), KIND, X, X, 1)


@pytest.mark.needs("transformers")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_types_of_numbers(dtype: torch.dtype) -> None:
    exact = explain_text(transformer("bert"), KIND, X, CASES["inserted"], 1)
    found = explain_text(transformer("bert").to(dtype), KIND, X, CASES["inserted"], 1)
    assert found.present.dtype == dtype
    assert found.comparisons[0].way == "gaps"
    rough = 1e-5 if dtype == torch.float32 else 0.05
    assert float(found.missing[3]) == pytest.approx(float(exact.missing[3]), abs=rough)
    assert abs(float(found.completeness_error[0])) < rough


def test_a_model_that_counts_its_tokens_is_refused() -> None:
    """Without a mask, and with another value for every length, two texts have no common length."""

    class Mean(Bag):
        def forward(self, ids: Tensor) -> Tensor:
            return super().forward(ids) / ids.shape[1]

    with pytest.raises(ValueError, match="pass a reference with as many tokens, or a model that takes attention_mask="):
        explain_text(Mean(), PLAIN, [GOOD, FILM], [NOT, GOOD, FILM])
    found = explain_text(Mean(), PLAIN, [9, GOOD, FILM], [NOT, GOOD, FILM])
    assert found.comparisons[0].total == pytest.approx(found.output - found.comparisons[0].output)


@pytest.mark.needs("transformers")
def test_a_warning_where_the_words_have_little_of_the_difference() -> None:
    warnings.simplefilter("always")
    with pytest.warns(AbsenceWarning, match="the words have"):
        explain_text(transformer("gpt2"), KIND, X, CASES["inserted"], 1)


def test_the_figure_shows_the_missing_token_in_the_reference() -> None:
    pytest.importorskip("matplotlib")
    found = explain_text(Flip(), PLAIN, [FILM, GOOD], [[FILM, NOT, GOOD], [NOT, GOOD]])
    figure = found.figure()
    shown = {patch.get_gid(): patch.get_facecolor()[:3] for patch in figure.axes[0].patches}
    red, green, blue = shown["reference-1"]
    assert red > max(blue, green)  # "not" is missing, and that raises the output
    assert found.figure(reference=1).axes
    assert "<img" in found._repr_html_()


def test_letters_that_break_a_line_are_escaped() -> None:
    kind = TextKind({1: "\n", 2: "a\u202eb", 3: " not"})
    found = explain_text(Bag(), kind, [1, 3], [2, 3])
    assert found.words()[0].startswith("the text has '\\n' where the reference has 'a\\u202eb'")
    assert all(len(line) for line in found.table().splitlines())


@pytest.mark.needs("transformers")
def test_a_token_that_the_text_has_elsewhere_is_not_said_to_be_missing() -> None:
    found = explain_text(transformer("bert"), KIND, [CLS, NOT, GOOD, BAD, SEP], [CLS, GOOD, BAD, NOT, SEP])
    said = " ".join(found.words())
    assert "the text has 'not' elsewhere than the reference" in said
    assert "lacks" not in said
    assert "has not" not in said


def test_sums_that_half_precision_loses_are_warned_of() -> None:
    class Unmasked(nn.Module):  # its values in one length are others, by about a rounding step of bfloat16
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embedding, self.head = nn.Embedding(30, 4), nn.Linear(4, 2)

        def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
            return self.head(self.embedding(ids).mean(1))

    with pytest.warns(
        AbsenceWarning, match="all parts sum to 0.641, and u\\(x\\) - u\\(r\\) is 0.559: in half precision"
    ):
        explain_text(Unmasked().bfloat16().eval(), KIND, [NOT, GOOD, FILM], [GOOD, FILM], 1)

"""Nearest texts by mean embedding, real tokenizers, hostile text, and planted absences."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
import torch
from texts_nets import BAD, CLS, FILM, GOOD, KIND, NOT, PAD, PLAIN, SEP, Bag, Flip, transformer
from torch import Tensor, nn

from absence_plugins import ReferenceSet, TextKind, TokenSpace
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.outputs import Logit, Margin
from absence_plugins.core.spaces import Space
from absence_plugins.methods.texts import explain_nearest, explain_text, text_kind, text_references

HOSTILE = """<script>alert(1)</script>"><img src=x onerror=alert(1)> & שלום עולם مرحبا 今日は月 😀 $x_1"""


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_points_are_mean_embeddings_of_words(distance: Any) -> None:
    matrix = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    space = TokenSpace(matrix, KIND, distance)
    assert isinstance(space, Space)
    points = space.points(torch.tensor([[CLS, GOOD, NOT, SEP, PAD], [CLS, SEP, PAD, PAD, PAD]]))
    mean = (matrix[GOOD] + matrix[NOT]) / 2
    assert torch.allclose(points[0], mean / mean.norm() if distance == "cosine" else mean)
    assert points[1].tolist() == [0] * 5
    unpadded = space.points(torch.tensor([[GOOD, NOT]]))
    assert torch.equal(points[:1], unpadded)  # bit by bit


def test_nearest_texts_are_those_of_a_second_writing() -> None:
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(30, 5, generator=generator)
    texts = [torch.randint(7, 30, (int(n),), generator=generator).tolist() for n in torch.randint(1, 9, (40,))]
    labels = torch.arange(40) % 2
    references = text_references(matrix, PLAIN, texts, labels, k=3, distance="cosine")
    x = torch.tensor([[8, 9, 10, 0, 0, 0, 0, 0]])[:, : references.images[0].shape[1]]
    mean = [matrix[text].mean(0) for text in texts]
    own = matrix[[8, 9, 10]].mean(0)
    near = sorted(range(0, 40, 2), key=lambda n: -float(torch.cosine_similarity(own, mean[n], dim=0)))[:3]
    assert references.nearest_indices(x, target=1)[0].tolist() == near
    batch = torch.cat([x, x.flip(1)])
    assert torch.equal(references.nearest_indices(batch)[0], references.nearest_indices(x)[0])


@pytest.mark.needs("transformers")
def test_the_space_follows_the_weights_and_says_what_it_needs() -> None:
    model = Bag()
    space = TokenSpace(model, PLAIN)
    before = space.state()
    assert before == space.state()
    model.embedding.weight.data[GOOD] += 1
    assert before != space.state()
    assert torch.equal(
        TokenSpace(model.embedding, PLAIN).points(torch.tensor([[GOOD]])), space.points(torch.tensor([[GOOD]]))
    )
    with pytest.raises(ValueError, match="token id 30 is not among the 30"):
        space.points(torch.tensor([[30]]))
    with pytest.raises(ValueError, match="distance='l1' must be one of"):
        TokenSpace(model, PLAIN, "l1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be a TextKind"):
        TokenSpace(model, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"several embeddings \(0, 1\)"):
        TokenSpace(nn.Sequential(nn.Embedding(3, 2), nn.Embedding(3, 2)), PLAIN)
    with pytest.raises(ValueError, match=r"no nn\.Embedding"):
        TokenSpace(nn.Linear(1, 1), PLAIN)
    assert TokenSpace(transformer("bert"), KIND).points(torch.tensor([[GOOD]])).shape == (1, 16)


def test_references_of_several_lengths_need_padding() -> None:
    kind = TextKind({0: "a", 1: "b"})
    assert isinstance(text_references(torch.eye(2), kind, ["a b", "b a"], k=1), ReferenceSet)
    with pytest.raises(ValueError, match="pad_token"):
        text_references(torch.eye(2), kind, ["a b", "b"])
    with pytest.raises(ValueError, match="no reference texts"):
        text_references(torch.eye(2), kind, [])


def of_two_logits() -> nn.Module:
    """Logit 1 is that of :class:`Flip`, logit 0 its negative, logit 2 is always -9."""

    class Two(Flip):
        def forward(self, ids: Tensor) -> Tensor:
            z = super().forward(ids)
            return torch.stack([-z, z, 0 * z - 9], 1)

    return Two()


TEXTS = ["film good", "not good film", "film not good", "bad", "not bad good"]
LABELS = [1, 0, 0, 2, 1]


@pytest.mark.parametrize(
    ("output", "contrast", "expected"),
    [
        (None, None, ["not good film"]),
        (1, None, ["not good film"]),
        (1, 2, ["bad"]),
        (Margin(1, 0), None, ["not good film"]),
        (Margin(1, 2), None, ["bad"]),
        (Logit(0, sign=-1), None, ["not good film"]),
    ],
)
def test_references_are_of_the_contrast_class(output: Any, contrast: int | None, expected: list[str]) -> None:
    model = of_two_logits()
    model.embedding.weight.data[FILM] = model.embedding.weight.data[BAD] = torch.tensor([0.0, 0.0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = explain_nearest(
            model, KIND, "good film", TEXTS, LABELS, output, k=1, contrast=contrast, distance="euclidean"
        )
    assert [one.text for one in found.comparisons] == expected


def test_a_model_of_one_logit_is_compared_with_the_other_class() -> None:
    labels = [1, 0, 0, 0, 1]
    found = explain_nearest(Flip(), PLAIN, "good film", TEXTS, labels, k=2)
    assert {one.text for one in found.comparisons} == {"not good film", "film not good"}
    with pytest.warns(AbsenceWarning, match="not lower"):
        found = explain_nearest(Flip(), PLAIN, "good film", TEXTS, labels, Logit(0, sign=-1), k=1)
    assert found.comparisons[0].text == "film good"
    with pytest.raises(ValueError, match="would be compared with itself"):
        explain_nearest(of_two_logits(), KIND, "good film", TEXTS, LABELS, 1, contrast=1)
    with pytest.raises(ValueError, match="3 reference samples of class 0, but k=4"):
        explain_nearest(Flip(), PLAIN, "good film", TEXTS, labels, k=4)
    with pytest.raises(ValueError, match="5 texts"):
        explain_nearest(Flip(), PLAIN, "good film", TEXTS, [1], k=1)


def test_the_text_itself_is_no_reference() -> None:
    texts = ["film good", "not good", "not good", "bad not good"]
    found = explain_nearest(Flip(), PLAIN, "film good", texts, [0, 0, 0, 0], k=2)
    assert [one.text for one in found.comparisons] == ["not good", "bad not good"]  # one that comes again counts once


# -- real tokenizers ---------------------------------------------------------------------------------------------------


def tokenizer(form: str) -> Any:
    """A tokenizer of a form, trained on a handful of sentences."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    corpus = ["the film is good", "the film is not good", "nothing was here", HOSTILE] * 4
    if form == "bytes":
        made, trainer = (
            Tokenizer(models.BPE()),
            trainers.BpeTrainer(
                vocab_size=300, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
            ),
        )
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    elif form == "wordpiece":
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=special)
        made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    else:
        made = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="[UNK]")
        made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.train_from_iterator(corpus, trainer)
    ends = [(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    names = {f"{name[1:-1].lower()}_token": name for name in special}
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=100, **names)


def bert(vocabulary: int) -> Any:
    """Random weights."""
    hf = pytest.importorskip("transformers", minversion="5.0")
    torch.manual_seed(0)
    config = hf.BertConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=100,
        id2label={0: "negative", 1: "positive"},
    )
    return hf.BertForSequenceClassification(config).double().eval()


@pytest.mark.filterwarnings("ignore:reference .* the words have")
@pytest.mark.needs("transformers", "tokenizers")
@pytest.mark.parametrize("form", ["bytes", "wordpiece", "unigram"])
def test_real_tokenizers_and_hostile_text(form: str) -> None:
    read = tokenizer(form)
    kind = text_kind(read)
    assert kind.special == (0, 2, 3, 4)
    ids = read(HOSTILE)["input_ids"]
    tokens = kind.tokens(torch.tensor(ids))
    assert len(tokens) == len(ids)
    assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")
    shown = "".join(tokens[1:-1]).replace("‥", "")
    if form == "bytes":
        assert shown == HOSTILE
    model = bert(len(read))
    for x, r in ((HOSTILE, "the film is good"), ("", HOSTILE), ("the film is good", "the film is not good")):
        found = explain_text(model, read, x, r, 1)
        assert float(found.completeness_error.abs().max()) < 1e-9
        assert "<script>" not in found._repr_html_()
        json.dumps(found.to_dict(), ensure_ascii=False).encode()
        found.table().encode()
        repr(found).encode()
        assert found.explained_words() == "logit 1 (positive)"
    lacked = {word.split("'")[1] for word in found.words() if word.startswith("the text lacks")}
    assert lacked <= {"not", "n", "o", "t", "no", " ", "ot"}
    assert lacked == {"not"} or form == "bytes"
    two = explain_text(model, read, ("the film", "is good"), ("the film", "is not good"), 1)
    assert float(two.completeness_error.abs().max()) < 1e-9
    with pytest.raises(ValueError, match="the tokenizer allows 100: shorten it"):
        explain_text(model, read, "film " * 120, "the film is good")


@pytest.mark.needs("transformers")
def test_a_text_of_512_tokens() -> None:
    model = transformer("distilbert", positions=512)
    ids = torch.randint(7, 30, (510,), generator=torch.Generator().manual_seed(0)).tolist()
    x, r = [CLS, *ids, SEP], [CLS, *ids[:300], NOT, *ids[301:], SEP]
    found = explain_text(model, KIND, x, r, 1)
    assert found.missing.nonzero().flatten().tolist() == [301]
    assert float(found.completeness_error.abs().max()) < 1e-9
    assert len(found.table().splitlines()) < 40


# -- planted -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_planted_negation_is_found_where_a_standard_map_shows_nothing() -> None:
    from absence_plugins.data.planted import negation_missing
    from absence_plugins.data.planted.text import BLANK, VOCABULARY

    problem = negation_missing()

    class Ids(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding.from_pretrained(torch.eye(len(VOCABULARY)))
            self.problem = problem.model

        def forward(self, ids: Tensor) -> Tensor:
            return self.of(self.embedding(ids))

        def of(self, embedded: Tensor) -> Tensor:
            return self.problem(embedded.transpose(1, 2)[:, :, None])

    model = Ids().eval()
    kind = TextKind({number: word or "<pad>" for number, word in enumerate(VOCABULARY)}, (BLANK,))
    texts, pool = problem.images.argmax(1)[:, 0], problem.pool_images.argmax(1)[:, 0]
    twins = problem.twins.argmax(1)[:, 0]  # type: ignore[union-attr]
    right, strongest, standard, asked = 0, 0, [], (problem.labels == 1).nonzero().flatten().tolist()
    for number in asked:
        found = explain_nearest(model, kind, texts[number], list(pool), problem.pool_labels, 1, k=1)
        reference = found.comparisons[0]
        same = (pool == reference.ids.cpu()).all(1).nonzero().flatten()[0]
        key = int(problem.pool_regions[same, 0, 0].nonzero()[0])
        right += float(reference.missing[key]) > 0
        strongest += int(reference.missing.argmax()) == key
        place = int((texts[number] != twins[number]).nonzero()[0])
        empty = torch.eye(len(VOCABULARY))[BLANK].expand(12, -1)[None]
        x = torch.eye(len(VOCABULARY))[texts[number]][None]
        points = (empty + (torch.arange(32) + 0.5)[:, None, None] / 32 * (x - empty)).requires_grad_()
        (gradients,) = torch.autograd.grad(model.of(points)[:, 1].sum(), points)
        map_alone = (gradients.mean(0) * (x - empty)[0]).sum(-1)  # integrated gradients of the text alone
        standard.append(float(map_alone[place].abs() / map_alone.abs().sum()))
    assert len(asked) >= 40
    assert right >= 0.99 * len(asked)
    assert strongest >= 0.95 * len(asked)
    assert sum(standard) / len(standard) < 2 / 12  # chance is 1 of 12 tokens


@pytest.mark.needs("transformers")
@pytest.mark.slow
def test_a_trained_transformer_lacks_the_word_that_its_class_has_not() -> None:
    """Class 0 has "not" somewhere, all else is random, of any length: the nearest of them shows what is missing."""
    generator = torch.Generator().manual_seed(0)

    def draw(negated: bool) -> list[int]:
        words = torch.randint(7, 16, (int(torch.randint(3, 9, (1,), generator=generator)),), generator=generator)
        text = words.tolist()
        if negated:
            text.insert(int(torch.randint(0, len(text) + 1, (1,), generator=generator)), NOT)
        return [CLS, *text, SEP]

    texts = [draw(number % 2 == 0) for number in range(400)]
    labels = torch.arange(400) % 2
    ids = torch.tensor([text + [PAD] * (12 - len(text)) for text in texts])
    model = transformer("bert").float()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(120):
        rows = torch.randint(0, 400, (64,), generator=generator)
        model(input_ids=ids[rows], attention_mask=(ids[rows] != PAD).long(), labels=labels[rows]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    right, strongest, rest = 0, 0, []
    for _ in range(60):
        x = draw(False)
        found = explain_nearest(model, KIND, x, texts, labels, 1, k=1)
        place = found.reference_ids.tolist().index(NOT)
        right += float(found.missing[place]) > 0
        strongest += int(found.missing.argmax()) == place
        one = found.comparisons[0]
        rest.append((abs(one.moved) + abs(one.special)) / abs(one.total))
    assert right == 60
    assert strongest >= 57
    assert sum(rest) / 60 < 0.2

"""``absence-plugins explain TEXTS.txt --text``: a tiny BERT in a folder, a model of one's own, and wrong inputs."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from absence_plugins import TextKind
from absence_plugins.cli import app
from absence_plugins.commands.kinds.text_samples import describe_text, say_rest
from absence_plugins.commands.kinds.text_tests import GAP, measure_tokens, with_gap
from absence_plugins.methods.texts import explain_text

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "film",
    "is",
    "not",
    "good",
    "bad",
    "very",
    "a",
    "dull",
    "plot",
]
OWN = """
import torch
from torch import nn

VOCABULARY = {"<pad>": 0, "not": 1, "good": 2, "film": 3, "<b>bold</b>": 4}

class Bag(nn.Module):  # positive - negative: 2 per good, -5 per not
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 2)
        self.embedding.weight.data = torch.tensor([[0.0, 0.0], [0.0, -5.0], [0.0, 2.0], [0.0, 0.0], [0.0, 1.0]])
    def forward(self, input_ids, attention_mask=None):
        found = self.embedding(input_ids)
        return (found if attention_mask is None else found * attention_mask[..., None]).sum(1)

def bag():
    return Bag(), VOCABULARY, ["negative", "positive"]

def alone():
    return Bag()
"""


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT that learned in a second that "not" turns "good" around."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bert") / "model"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = transformers.BertTokenizerFast(str(folder / "vocab.txt"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=32, id2label={0: "negative", 1: "positive"}, label2id={"negative": 0, "positive": 1},
        )  # fmt: skip
        model = transformers.BertForSequenceClassification(config)
        good = [
            "the film is good",
            "a good plot",
            "the film is very good",
            "a very good plot",
            "good",
            "very good film",
        ]
        bad = ["the film is not good", "a not good plot", "not good", "not good film", "the film is bad", "a bad plot",
               "very bad film", "a very bad plot", "bad"]  # fmt: skip
        batch = tokenizer([*good, *bad], padding=True, return_tensors="pt")
        truth = torch.tensor([1] * len(good) + [0] * len(bad))
        optimizer = torch.optim.Adam(model.parameters(), 0.02)
        for _ in range(60):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(**batch).logits, truth).backward()
            optimizer.step()
        assert (model.eval()(**batch).logits.argmax(1) == truth).all()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Texts and a module as the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "text_models.py").write_text(OWN)
    (tmp_path / "texts.txt").write_text("the film is good\n\n  \na good plot\n", encoding="utf-8")
    (tmp_path / "references.csv").write_text(
        "text,label\nthe film is not good,negative\na good plot,positive\na not good plot,negative\n"
    )
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["explain", *arguments])
    return result.exit_code, " ".join(result.output.split())


def page(*arguments: str) -> str:
    code, output = run(*arguments, "--out", "page", "--quiet")
    assert code == 0, output
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", Path("page/index.html").read_text(encoding="utf-8"))).split())


@pytest.mark.needs("transformers")
def test_what_a_text_lacks_is_said(folder: Path, bert: Path) -> None:
    said = page("texts.txt", "--text", "--model", f"hf:{bert}", "--references", "references.csv")
    assert "Text 0: “the film is good”: class 1 (positive)" in said
    assert "line 2 of references.csv, “the film is not good”" in said
    assert "The text lacks 'not', which the reference has: raises logit 1 (positive) by" in said
    assert "What is missing: '(nothing)' -> 'not'" in said
    assert "the model predicts the label of 3 of 3" in said
    assert "texts.txt: 2 empty lines were passed over" in said
    assert "absence-plugins explain texts.txt --text --model" in said


@pytest.mark.needs("transformers")
def test_the_output_with_the_missing_token_is_that_of_the_reference(folder: Path, bert: Path) -> None:
    """With "not" put in, the text is the reference: the output after the test is u(r)."""
    from absence_plugins.commands.kinds.explain_texts import explain_texts
    from absence_plugins.commands.kinds.options import KindOptions

    found = explain_texts(
        KindOptions("text", (Path("texts.txt"),), f"hf:{bert}", references=Path("references.csv"), rows="0", out=Path("page"),
                    progress=False)
    )  # fmt: skip
    one = found.findings[0]
    test = one.tests["missing"].tests[0]
    assert test.before == pytest.approx(one.question.value, rel=1e-5)
    assert test.after == pytest.approx(one.reference_value, rel=1e-4, abs=1e-5)
    model, tokenizer = one.loaded.model, one.loaded.tokenizer
    with torch.no_grad():
        own, other = (
            float(model(**tokenizer(t, return_tensors="pt")).logits[0, 1])
            for t in ("the film is good", "the film is not good")
        )
    assert one.question.value == pytest.approx(own, rel=1e-5)
    assert one.reference_value == pytest.approx(other, rel=1e-5)


def test_a_model_of_ones_own_with_a_vocabulary(folder: Path) -> None:
    """2 per good and -5 per not: closed form."""
    Path("texts.txt").write_text("good film\n")
    Path("others.txt").write_text("not good film\ngood\n")
    said = page("texts.txt", "--text", "--model", "text_models:bag", "--references", "others.txt")
    assert "Its output is 2; on the only reference of class 0 (negative)" in said
    assert "it is -3. The difference of +5" in said
    assert "The text lacks 'not', which the reference has: raises logit 1 (positive) by 5." in said
    assert "the output is -3 instead of 2" in said


def test_without_references_the_other_texts_are_taken(folder: Path) -> None:
    Path("texts.txt").write_text("good film\nnot good film\n")
    said = page("texts.txt", "--text", "--model", "text_models:bag")
    assert "No --references: each text is compared with the other texts of texts.txt." in said
    assert "Text 1: “not good film”: class 0 (negative)" in said


def test_hostile_text_is_escaped(folder: Path) -> None:
    Path("texts.txt").write_text("good <b>bold</b>\nnot <b>bold</b>\n")
    page("texts.txt", "--text", "--model", "text_models:bag")
    assert "<b>bold</b>" not in Path("page/index.html").read_text(encoding="utf-8")


REFUSED = {
    "texts.txt --text": "--text needs --model hf:FOLDER or module:factory",
    "texts.txt --text --model text_models:alone": "text_models:alone must return (model, tokenizer)",
    "texts.txt --text --model torchvision:vgg11": "is a model of images; --text needs hf:FOLDER",
    "texts.txt --text --model hf:.": "has no config.json",
    "empty.txt --text --model text_models:bag": "empty.txt is empty",
    "none.txt --text --model text_models:bag": "none.txt does not exist",
    "two.csv --text --model text_models:bag": "has the columns a, b, and none is called text",
    "bytes.txt --text --model text_models:bag": "save it as text in UTF-8",
    "texts.txt --text --model text_models:bag --label label": "has one text per line and no columns",
    "words.txt --text --model text_models:bag": "unknown",
    "texts.txt texts.txt --text --model text_models:bag": "--text takes one file, and 2 were named",
    "good.txt --text --model text_models:bag --method relevance:gamma": "texts are explained by relevance with Epsilon",
    "good.txt --text --model text_models:bag --contrast neutral": "--contrast 'neutral' is no class of the model",
    "good.txt --text --model text_models:bag --references labels.csv": "the labels (mixed, neutral) are none of the model's classes (negative, positive)",
}


@pytest.mark.parametrize("words", REFUSED)
def test_wrong_input_is_one_line(folder: Path, words: str) -> None:
    Path("empty.txt").write_text("\n \n")
    Path("two.csv").write_text("a,b\ngood,not\n")
    Path("bytes.txt").write_bytes(b"good \xd8\xd0\xde\x81\n")
    Path("words.txt").write_text("unknown words\n")
    Path("good.txt").write_text("good film\nnot good film\n")
    Path("labels.csv").write_text("text,label\ngood,neutral\nnot,mixed\n")
    code, output = run(*words.split(), "--out", "page")
    assert code == 2, output
    assert REFUSED[words] in output or "unknown" in words
    assert "Traceback" not in output


@pytest.mark.needs("transformers")
def test_a_text_that_is_too_long_is_skipped_and_named(folder: Path, bert: Path) -> None:
    Path("texts.txt").write_text("the film is good\n" + "good " * 40 + "\n")
    code, output = run(
        "texts.txt", "--text", "--model", f"hf:{bert}", "--references", "references.csv", "--out", "page"
    )
    assert code == 0, output
    assert "skipped Text 1" in output
    assert "1 of 2 texts explained" in output
    Path("texts.txt").write_text("the film is good\nnot good\n" + "good " * 40 + "\n")
    code, output = run("texts.txt", "--text", "--model", f"hf:{bert}", "--rows", "0", "--out", "page")
    assert code == 0
    assert "1 text was left out as a reference: line 3 of texts.txt has 42 tokens" in output


@pytest.mark.parametrize("count", [1, 3])
def test_several_tokens_are_borne_out_where_every_one_counts(count: int) -> None:
    kind = with_gap(TextKind({number: f"w{number}" for number in range(300)}))
    x = torch.tensor([1, GAP, 2, GAP, 3, GAP, 4])
    reference = torch.tensor([1, 10, 2, 11, 3, 12, 4])
    evidence = torch.where(x == GAP, 2.0, 0.0)
    evidence[2 * count :] = 0

    def read(texts: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.tensor([5.0 - 2 * sum(int(one) in (10, 11, 12) for one in ids) for ids in texts])

    words = torch.arange(20, 300)
    found = measure_tokens(read, kind, x, reference, evidence, words, is_missing=True, rises=False, seed=0)
    assert found.borne == (True,) * count
    assert [len(test.random_values) for test in found.tests] == [20 * count - 1] * count
    few = measure_tokens(read, kind, x, reference, evidence, words[:5], is_missing=True, rises=False, seed=0)
    assert few.verdict().startswith("Undecided: there are only 5 other words, so p cannot be 0.05")
    assert not few.is_borne


@pytest.mark.needs("transformers")
def test_a_text_as_long_as_the_model_takes_is_explained(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text("the film is very good " + "film " * 25)  # 30 words, [CLS] and [SEP]
    Path("references.txt").write_text("the film is not very good\nnot good\nthe film is bad")
    result = CliRunner().invoke(
        app, f"explain texts.txt --text --model hf:{bert} --references references.txt --out page".split()
    )
    assert result.exit_code == 0, result.output
    assert "1 of 1 text explained" in result.output
    said = html.unescape(Path("page/index.html").read_text())
    assert "tokens in addition were not put in as a test" in said
    assert "the map names no token" not in said


def test_a_page_says_what_is_in_no_word() -> None:
    net = nn.Sequential(nn.Embedding(3, 1), nn.Flatten(1), nn.Linear(2, 1, bias=False)).eval()
    net[0].weight.data, net[2].weight.data = torch.tensor([[0.0], [-5.0], [2.0]]), torch.ones(1, 2)
    found = explain_text(net, {"very": 0, "not": 1, "good": 2}, "very good", ["not good", "not very"])
    assert say_rest(found) == ""
    assert describe_text(found)[:2] == (
        "Compared with the first reference:",
        "The text has 'very' where the reference has 'not': raises the output by 5.",
    )
    parts = [replace(found.comparisons[0], special=3.0, moved=-1.0), found.comparisons[1]]
    said = say_rest(replace(found, comparisons=tuple(parts)))
    assert said.startswith(": +1.5 of it are in special tokens, -0.5 in words that both texts have")

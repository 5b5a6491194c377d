"""Alignment of two texts, by a second writing; words of tokenizers as people read them."""

from __future__ import annotations

import json
from functools import lru_cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from absence_plugins import TextKind
from absence_plugins.core.kinds import kind_from_dict
from absence_plugins.methods.texts import align_tokens, text_kind
from absence_plugins.methods.texts.words import read_tokenizer

IDS = st.lists(st.integers(4, 8), max_size=9)


def longest(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """The length of a longest common subsequence, by recursion."""

    @lru_cache
    def of(i: int, j: int) -> int:
        if i == len(a) or j == len(b):
            return 0
        return 1 + of(i + 1, j + 1) if a[i] == b[j] else max(of(i + 1, j), of(i, j + 1))

    return of(0, 0)


@given(IDS, IDS)
@settings(deadline=None, max_examples=300)
def test_as_many_tokens_are_common_as_can_be_and_all_stand_in_order(a: list[int], b: list[int]) -> None:
    pairs = align_tokens(a, b)
    assert [i for i, _ in pairs if i is not None] == list(range(len(a)))
    assert [j for _, j in pairs if j is not None] == list(range(len(b)))
    same = [(i, j) for i, j in pairs if i is not None and j is not None and a[i] == b[j]]
    assert len(same) == longest(tuple(a), tuple(b))
    assert pairs == align_tokens(torch.tensor(a, dtype=torch.long), torch.tensor(b, dtype=torch.long))


@given(IDS, IDS)
@settings(deadline=None, max_examples=300)
def test_no_token_is_missing_that_the_other_text_has_at_the_place(a: list[int], b: list[int]) -> None:
    """Between two common tokens there is no token that both texts have."""
    pairs, left, right = align_tokens(a, b), set(), set()
    for i, j in [*pairs, (None, None)]:
        is_common = i is not None and j is not None and a[i] == b[j]
        if is_common or (i is None and j is None):
            assert not left & right
            left, right = set(), set()
            continue
        left |= set() if i is None else {a[i]}
        right |= set() if j is None else {b[j]}


@given(IDS, IDS)
@settings(deadline=None, max_examples=100)
def test_the_ends_pair_with_each_other(a: list[int], b: list[int]) -> None:
    pairs = align_tokens([2, *a, 3], [2, *b, 3], special=(0, 2, 3))
    assert pairs[0] == (0, 0)
    assert pairs[-1] == (len(a) + 1, len(b) + 1)
    assert pairs[1:-1] == [(i if i is None else i + 1, j if j is None else j + 1) for i, j in align_tokens(a, b)]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([5, 8], [5, 7, 8], [(0, 0), (None, 1), (1, 2)]),
        ([5, 7, 8], [5, 8], [(0, 0), (1, None), (2, 1)]),
        ([5, 6, 8], [5, 7, 8], [(0, 0), (1, 1), (2, 2)]),  # replaced
        ([5, 6, 8], [5, 7, 9, 8], [(0, 0), (1, None), (None, 1), (None, 2), (2, 3)]),
        ([7, 7], [7], [(0, 0), (1, None)]),
        ([], [4], [(None, 0)]),
        ([2, 5, 3, 0, 0], [2, 5, 6, 3, 0], [(0, 0), (1, 1), (None, 2), (2, 3), (3, None), (4, 4)]),
    ],
)
def test_small_alignments(a: list[int], b: list[int], expected: list[tuple[int | None, int | None]]) -> None:
    assert align_tokens(a, b, special=(0, 2, 3)) == expected


def test_long_texts_are_aligned_in_a_moment() -> None:
    a = torch.randint(5, 9, (512,), generator=torch.Generator().manual_seed(0)).tolist()
    assert [pair for pair in align_tokens(a, [*a[:200], 9, *a[200:]]) if None in pair] == [(None, 200)]
    assert len(align_tokens(a, a[::-1])) >= 512


class Tokenizer:
    """As those of Hugging Face, with words of a byte-level BPE."""

    all_special_ids, pad_token_id, unk_token_id, cls_token_id = (0, 1, 2), 0, 1, 2
    words = ("<pad>", "<unk>", "<s>", "Ġnot", "good", "Ċ", "ĠæľĪ", "ðŁĺ", "Ģ", "é", "Ã©")

    def get_vocab(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [2, *(3 for _ in text.split())]}


def test_bytes_that_form_one_character_together_are_that_character() -> None:
    kind = text_kind(Tokenizer())
    assert kind.special == (0, 2)  # an unknown word is a word
    assert kind.tokens(torch.tensor([2, 3, 4, 5])) == ["<s>", " not", "good", "\n"]
    assert kind.tokens(torch.tensor([6, 10])) == [" 月", "é"]
    assert kind.tokens(torch.tensor([7, 8, 3])) == ["😀", "‥", " not"]
    assert kind.tokens(torch.tensor([7, 3, 8])) == ["\ufffd\ufffd\ufffd", " not", "\ufffd"]
    restored = kind_from_dict(json.loads(json.dumps(kind.to_dict())))
    assert isinstance(restored, TextKind)
    assert restored.tokens(torch.tensor([7, 8])) == ["😀", "‥"]
    "".join(kind.words.values()).encode()  # can be written


def test_words_of_other_tokenizers() -> None:
    class Pieces(Tokenizer):
        words = ("<pad>", "<unk>", "<s>", "▁not", "##ing", "<0xE6>", "<0x9C>", "<0x88>", "שלום", "<b>", "مرحبا")

    kind = text_kind(Pieces())
    assert kind.tokens(torch.arange(3, 11)) == [" not", "##ing", "月", "‥", "‥", "שלום", "<b>", "مرحبا"]
    assert text_kind({5: "a"}).tokens(torch.tensor([5, 6])) == ["a", "[6]"]
    with pytest.raises(TypeError, match="get_vocab"):
        text_kind(str.split)


def test_what_is_no_text_is_refused() -> None:
    encoder = read_tokenizer({"not": 1, "good": 2})
    assert encoder.read("good not")[0].tolist() == [2, 1]
    assert encoder.read(torch.tensor([[2, 1]]))[0].tolist() == [2, 1]
    with pytest.raises(ValueError, match="no word 'bad'"):
        encoder.read("not bad")
    with pytest.raises(ValueError, match="has no tokens"):
        encoder.read("")
    with pytest.raises(TypeError, match="float"):
        encoder.read(1.5)
    with pytest.raises(ValueError, match="are integers"):
        encoder.read(torch.ones(2))
    with pytest.raises(TypeError, match="must be one of Hugging Face"):
        read_tokenizer(3)
    with pytest.raises(TypeError, match="kind=TextKind"):
        read_tokenizer(str.split)
    assert read_tokenizer(Tokenizer()).read("a b")[0].tolist() == [2, 3, 3]

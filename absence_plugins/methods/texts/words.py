"""From a tokenizer to words as people read them, and from a text to token ids."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.kinds import TextKind

ENDS = ("pad", "cls", "sep", "mask", "bos", "eos")  # of which a tokenizer may have an id
UNLIMITED = 10**6  # tokenizers that know no longest text say a larger number
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def text_kind(tokenizer: Any, *, special: Sequence[int] | None = None) -> TextKind:
    """The kind of a tokenizer's texts: its words as people read them, and its special tokens.

    Byte-level BPE ("Ġnot" is " not"), SentencePiece ("▁not" is " not") and WordPiece ("##ing" stays: it continues a
    word) are told apart by the vocabulary. Bytes that are no character by themselves are kept as "<0xE4>";
    :meth:`TextKind.tokens` shows the character that several of them form.

    Args:
        tokenizer: of Hugging Face or of that form (``get_vocab()`` and ``all_special_ids``), or a vocabulary
            {word: id} or {id: word}.
        special: ids of padding, class, separator and mask tokens; None: what the tokenizer says. Its unknown token
            stands for a word and is none, unless it is also another one.

    Raises:
        TypeError: neither a tokenizer nor a vocabulary.

    >>> kind = text_kind({"<pad>": 0, "not": 1, "good": 2}, special=(0,))
    >>> kind.tokens(torch.tensor([1, 2])), kind.special
    (['not', 'good'], (0,))
    """
    if isinstance(tokenizer, TextKind):
        return tokenizer
    if isinstance(tokenizer, Mapping):
        return TextKind(dict(_number_first(*pair) for pair in tokenizer.items()), tuple(special or ()))
    if not hasattr(tokenizer, "get_vocab"):
        raise TypeError(
            f"a {type(tokenizer).__name__} has no get_vocab(); pass a tokenizer of Hugging Face, a vocabulary "
            "{word: id}, or kind=TextKind({id: word}, special=(...))"
        )
    named = {int(number): str(word) for word, number in tokenizer.get_vocab().items()}
    ends = tuple(sorted(_special_ids(tokenizer) if special is None else special))
    read = _reader(named, ends)
    return TextKind({number: read(number, word) for number, word in sorted(named.items())}, ends)


def _number_first(one: Any, other: Any) -> tuple[int, str]:
    return (int(other), one) if isinstance(one, str) else (int(one), str(other))


def _special_ids(tokenizer: Any) -> set[int]:
    named: list[Any] = [getattr(tokenizer, f"{name}_token_id", None) for name in ENDS]
    ends = {one for one in named if one is not None}
    unknown = getattr(tokenizer, "unk_token_id", None)
    return {int(one) for one in ends | set(getattr(tokenizer, "all_special_ids", ())) if one != unknown or one in ends}


def _reader(words: Mapping[int, str], special: Sequence[int]) -> Callable[[int, str], str]:
    """How the words of a vocabulary become text."""
    plain = [word for number, word in words.items() if number not in special]
    is_bytes = {"Ġ", "Ċ"} & {word[:1] for word in plain} and all(
        letter in BYTE_OF for word in plain[:2000] for letter in word
    )

    def read(number: int, word: str) -> str:
        if number in special:
            return word
        if is_bytes and all(letter in BYTE_OF for letter in word):
            return "".join(_spell(bytes(BYTE_OF[letter] for letter in word)))
        return word.replace("▁", " ")

    return read


def _spell(coded: bytes) -> list[str]:
    """UTF-8 as text, byte by byte where it is none.

    >>> _spell("né".encode()[:-1])
    ['n', '<0xC3>']
    """
    found, start = [], 0
    while start < len(coded):
        for length in range(1, 5):
            try:
                found.append(coded[start : start + length].decode())
                break
            except UnicodeDecodeError:
                continue
        else:
            found.append(f"<0x{coded[start]:02X}>")
            length = 1
        start += length
    return found


def _byte_letters() -> dict[str, int]:
    """The letters with which byte-level BPE writes bytes (GPT-2's table: printable ones stand for themselves)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(rest)}


BYTE_OF = _byte_letters()


@dataclass(frozen=True, eq=False)
class Encoder:
    """A tokenizer as the methods use it.

    Attributes:
        kind: words and special tokens.
        encode: from a text to token ids, and token types or None.
        padding: the id that fills a text up; None: there is none.
        longest: how many tokens a text may have; None: unknown.
        is_padding_apart: padding is no token that texts have, as an end of text.
    """

    kind: TextKind
    encode: Callable[[Any], tuple[list[int], list[int] | None]]
    padding: int | None = None
    longest: int | None = None
    is_padding_apart: bool = True

    def read(self, text: Any, what: str = "the text") -> tuple[Tensor, Tensor | None]:
        """Token ids [T] of a text, or of ids that are given as such, and its token types [T] or None.

        Raises:
            ValueError: no tokens, or more than the tokenizer allows.
            TypeError: neither a text (or a tuple of two) nor ids.
        """
        if isinstance(text, str) or (isinstance(text, tuple) and text and all(isinstance(one, str) for one in text)):
            ids, types = self.encode(text)
        elif isinstance(text, Tensor) or (
            isinstance(text, (list, tuple)) and all(hasattr(one, "__index__") for one in text)
        ):
            given = torch.as_tensor(text)
            if given.is_floating_point() or given.dim() not in (1, 2) or (given.dim() == 2 and len(given) != 1):
                raise ValueError(
                    f"{what} is a tensor {given.dtype} {tuple(given.shape)}; token ids of one text are integers [T]"
                )
            ids, types = given.flatten().tolist(), None
        else:
            raise TypeError(f"{what} must be a str, a tuple of two, or token ids, got a {type(text).__name__}")
        if not ids:
            raise ValueError(f"{what} {text!r} has no tokens, so there is nothing to compare; pass a text with words")
        check_length(len(ids), self.longest, what, "the tokenizer allows")
        return torch.tensor(ids, dtype=torch.long), None if types is None else torch.tensor(types, dtype=torch.long)


def check_length(count: int, longest: int | None, what: str, who: str) -> None:
    """Raise ValueError for a text of more tokens than are allowed."""
    if longest is not None and count > longest:
        raise ValueError(f"{what} has {count} tokens, and {who} {longest}: shorten it (nothing is cut silently)")


def read_tokenizer(tokenizer: Any, kind: TextKind | None = None) -> Encoder:
    """What stands between texts and ids: a tokenizer, a vocabulary {word: id}, or a function from text to ids.

    A vocabulary splits texts at blanks. A function needs ``kind``.

    Raises:
        TypeError: nothing of these.

    >>> read_tokenizer({"not": 1, "good": 2}).read("not good")[0].tolist()
    [1, 2]
    """
    if isinstance(tokenizer, TextKind):
        kind, tokenizer = kind or tokenizer, tokenizer.words
    if isinstance(tokenizer, Mapping):
        kind = kind or text_kind(tokenizer)
        places = {word: number for number, word in kind.words.items()}
        return Encoder(kind, lambda text: (_split(text, places), None), _only_padding(kind))
    if not callable(tokenizer):
        raise TypeError(
            f"the tokenizer must be one of Hugging Face, a vocabulary {{word: id}} or a function from a text to ids, got "
            f"a {type(tokenizer).__name__}"
        )
    if kind is None:
        kind = text_kind(tokenizer)
    longest = getattr(tokenizer, "model_max_length", None)
    padding = getattr(tokenizer, "pad_token_id", _only_padding(kind))
    return Encoder(
        kind,
        lambda text: _call(tokenizer, text),
        padding,
        int(longest) if isinstance(longest, (int, float)) and longest < UNLIMITED else None,
        padding not in {getattr(tokenizer, f"{name}_token_id", None) for name in ENDS[1:]} - {None},
    )


def _only_padding(kind: TextKind) -> int | None:
    """The padding of a kind of which no tokenizer tells it: the special token that is called so, or the only one."""
    named = [number for number in kind.special if "pad" in kind.words.get(number, "").lower()]
    if len(named) == 1 or len(kind.special) == 1:
        return named[0] if named else kind.special[0]
    return None


def _split(text: Any, places: Mapping[str, int]) -> list[int]:
    words = (" ".join(text) if isinstance(text, tuple) else text).split()
    unknown = [word for word in words if word not in places]
    if unknown:
        raise ValueError(f"the vocabulary has no word {unknown[0]!r}; pass a tokenizer, or a text of its words")
    return [places[word] for word in words]


def _call(tokenizer: Callable[..., Any], text: Any) -> tuple[list[int], list[int] | None]:
    found = tokenizer(*text) if isinstance(text, tuple) else tokenizer(text)
    types = None
    if isinstance(found, Mapping) or hasattr(found, "input_ids"):
        types = found.get("token_type_ids") if hasattr(found, "get") else None
        found = found["input_ids"]
    return _flat(found), None if types is None else _flat(types)


def _flat(ids: Any) -> list[int]:
    """One text's ids of whatever holds them."""
    listed = ids.tolist() if hasattr(ids, "tolist") else list(ids)
    if listed and isinstance(listed[0], list):
        if len(listed) != 1:
            raise ValueError(f"the tokenizer made {len(listed)} texts of one; pass one text at a time")
        listed = listed[0]
    return [int(one) for one in listed]

"""Two texts, token by token: which stand for each other, and which only one of them has."""

from __future__ import annotations

from collections.abc import Collection, Sequence

Pair = tuple[int | None, int | None]  # places in both texts; None: the text has nothing there


def align_tokens(a: Sequence[int], b: Sequence[int], special: Collection[int] = ()) -> list[Pair]:
    """Align two texts by a longest common subsequence of their tokens.

    Special tokens at both ends pair with each other first ([CLS] with [CLS], [SEP] and padding with the same). Between
    two common tokens, runs of equal length are replacements and pair in order; of other runs no token is paired.
    Of several longest subsequences the one that leaves out tokens of ``a`` as early as possible is taken, so that the
    result is the same every time.

    Args:
        a: token ids of the text (a sequence or a tensor [T]).
        b: those of the reference.
        special: ids of special tokens, which pair with special tokens only.

    Returns:
        Places (i, j) in a and b that belong together, in order; (i, None) where only a has a token, (None, j) where
        only b has one.

    >>> align_tokens([5, 6, 8], [5, 6, 7, 8])  # the third token of b is missing in a
    [(0, 0), (1, 1), (None, 2), (2, 3)]
    >>> align_tokens([5, 9, 8], [5, 6, 8])  # one token replaces another
    [(0, 0), (1, 1), (2, 2)]
    """
    own, other = [int(one) for one in a], [int(one) for one in b]
    unseen = set(special)
    head, tail = _count_ends(own, other, unseen)
    first, last = (head, len(own) - tail), (head, len(other) - tail)
    anchors = [(head + i, head + j) for i, j in _common(own[slice(*first)], other[slice(*last)])]
    pairs: list[Pair] = [(i, i) for i in range(head)]
    start, begin = head, head
    for i, j in [*anchors, (first[1], last[1])]:
        pairs += _fill(own, other, range(start, i), range(begin, j), unseen)
        if (i, j) != (first[1], last[1]):
            pairs.append((i, j))
        start, begin = i + 1, j + 1
    return pairs + [(len(own) - k, len(other) - k) for k in range(tail, 0, -1)]


def _count_ends(a: list[int], b: list[int], special: set[int]) -> tuple[int, int]:
    """How many special tokens begin both texts alike, and how many end them alike; at the end of unequal padding the
    separators pair.
    """
    least = min(len(a), len(b))
    head = 0
    while head < least and a[head] == b[head] and a[head] in special:
        head += 1
    tail = 0
    while tail < least - head and a[-1 - tail] == b[-1 - tail] and a[-1 - tail] in special:
        tail += 1
    return head, tail


def _fill(a: list[int], b: list[int], left: range, right: range, special: set[int]) -> list[Pair]:
    """A run of each between two anchors: replacements where they are equally long, else gaps."""
    fits = len(left) == len(right) and all(
        (a[i] in special) == (b[j] in special) for i, j in zip(left, right, strict=True)
    )
    if fits:
        return list(zip(left, right, strict=True))
    return [*((i, None) for i in left), *((None, j) for j in right)]


def _common(a: list[int], b: list[int]) -> list[tuple[int, int]]:
    """The places of a longest common subsequence, by dynamic programming; ends that agree are taken off first."""
    head = 0
    while head < min(len(a), len(b)) and a[head] == b[head]:
        head += 1
    tail = 0
    while tail < min(len(a), len(b)) - head and a[-1 - tail] == b[-1 - tail]:
        tail += 1
    inner, other = a[head : len(a) - tail], b[head : len(b) - tail]
    length = [[0] * (len(other) + 1) for _ in range(len(inner) + 1)]  # of the suffixes from i and j on
    for i in range(len(inner) - 1, -1, -1):
        row, below = length[i], length[i + 1]
        for j in range(len(other) - 1, -1, -1):
            row[j] = 1 + below[j + 1] if inner[i] == other[j] else max(below[j], row[j + 1])
    found = [(i, i) for i in range(head)]
    i = j = 0
    while i < len(inner) and j < len(other):
        if inner[i] == other[j]:
            found.append((head + i, head + j))
            i, j = i + 1, j + 1
        elif length[i + 1][j] >= length[i][j + 1]:
            i += 1
        else:
            j += 1
    return found + [(len(a) - k, len(b) - k) for k in range(tail, 0, -1)]

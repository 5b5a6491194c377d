"""Rows that ranks share out: the same bits for any number of them, each reads its share, a killed one can be resumed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from ranked import run_ranks
from torch import Tensor, nn

from absence_plugins.core import AbsenceWarning
from absence_plugins.methods.batches import Batches
from absence_plugins.methods.checkpoint import Checkpoint
from absence_plugins.methods.directions import DirectionPairs, influence
from absence_plugins.methods.kept_rows import KeptRows
from absence_plugins.methods.layer_values import layer_values
from absence_plugins.methods.rank_sums import RankSums
from absence_plugins.methods.ranks import ranks

X = torch.randn(23, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SIZE = 3


def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.ReLU())


class Reading:
    """Batches of X that note which samples are read, and kill one rank at one of them."""

    def __init__(self, kill: tuple[int, int] | None = None) -> None:
        self.read: list[int] = []
        self.kill = kill
        self.batches = Batches(len(X), SIZE, self.take)

    def take(self, wanted: Sequence[range]) -> Iterator[Tensor]:
        for numbers in wanted:
            for number in numbers:
                if self.kill == (ranks()[0], number):
                    os.kill(os.getpid(), signal.SIGKILL)
            self.read += numbers
            yield X[numbers.start : numbers.stop]


def values(
    folder: Path | None, kill: tuple[int, int] | None = None, first_only: bool = False
) -> tuple[Tensor, list[int]]:
    reading = Reading(kill)
    keeper = None if folder is None else Checkpoint(folder, {}, "values", save_every=0)
    kept = KeptRows(keeper, len(X))
    found = layer_values(net(), "3", reading.batches, kept=kept, first_only=first_only, progress=False)
    return found, reading.read


@pytest.fixture(scope="module")
def expected() -> Tensor:
    torch.set_num_threads(1)
    return values(None)[0]


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("keeps", [True, False])
def test_any_number_of_ranks_gives_the_same_bits(world: int, keeps: bool, expected: Tensor, tmp_path: Path) -> None:
    found = run_ranks(world, values, tmp_path if keeps else None)
    for rank, (each, read) in enumerate(found):
        assert torch.equal(each, expected), rank
        assert read == [number for number in range(len(X)) if number // SIZE % world == rank]


def test_rows_of_the_first_rank_only(expected: Tensor) -> None:
    found = run_ranks(3, values, None, None, True)
    assert torch.equal(found[0][0], expected)
    assert [len(each) for each, _ in found[1:]] == [0, 0]


def test_more_ranks_than_batches() -> None:
    def work() -> Tensor:
        return layer_values(net(), "3", Batches.of(X[:4], 2), progress=False)

    for each in run_ranks(4, work):
        assert torch.equal(each, work())


@pytest.mark.parametrize(("first", "then"), [(2, 1), (4, 2), (1, 4), (2, 3)])
def test_a_killed_rank_is_resumed_with_any_number(first: int, then: int, expected: Tensor, tmp_path: Path) -> None:
    number = 12 if first == 1 else (first - 1 + first) * SIZE  # of the last rank's second batch
    if first == 1:
        keeper = Checkpoint(tmp_path, {}, "values", save_every=0)
        with KeptRows(keeper, len(X)) as kept:
            for at in range(0, number, SIZE):
                kept.put(range(at, at + SIZE), expected[at : at + SIZE])
    else:
        found = run_ranks(first, values, tmp_path, (first - 1, number))
        assert found[first - 1] == -signal.SIGKILL
        assert all(text.startswith("RankLost") for text in found[:-1])
    known = len(list(tmp_path.glob("values-*.safetensors")))
    assert 0 < known < 8
    resumed = run_ranks(then, values, tmp_path)
    assert all(torch.equal(each, expected) for each, _ in resumed)
    read = sorted(number for _, own in resumed for number in own)
    assert len(read) == len(set(read)) == len(X) - SIZE * known + (SIZE * 8 - len(X)) * (22 not in read)
    again = run_ranks(then, values, tmp_path)
    assert [own for _, own in again] == [[]] * then
    assert all(torch.equal(each, expected) for each, _ in again)


def test_a_damaged_file_is_made_again_by_one_rank(expected: Tensor, tmp_path: Path) -> None:
    run_ranks(2, values, tmp_path)
    (tmp_path / "values-000000006.safetensors").write_bytes(b"damaged")

    def work() -> Any:
        with pytest.warns(AbsenceWarning, match="damaged") if ranks()[0] == 0 else pytest.MonkeyPatch.context():
            return values(tmp_path)

    found = run_ranks(2, work)
    assert sorted(found[0][1] + found[1][1]) == [6, 7, 8]
    assert all(torch.equal(each, expected) for each, _ in found)


def test_a_state_of_an_earlier_version_is_read(expected: Tensor, tmp_path: Path) -> None:
    for first in (0, 12):
        rows = {"rows": expected[first : first + 12], "first": torch.tensor(first)}
        Checkpoint(tmp_path, {}, "values").save(f"values-{first:09d}", rows)
    found, read = values(tmp_path)
    assert (torch.equal(found, expected), read) == (True, [])


def test_ranks_with_other_work_are_told() -> None:
    def work() -> Any:
        with KeptRows(count=3 + ranks()[0]):
            pass

    for each in run_ranks(2, work):
        assert each.startswith("ValueError: the ranks of this torchrun do not do the same work: rank 1 has 4 samples")


def test_an_error_of_one_rank_ends_the_others() -> None:
    def work() -> Any:
        def broken(wanted: Sequence[range]) -> Iterator[Tensor]:
            for numbers in wanted:
                if numbers.start == SIZE:
                    raise ValueError("image 4 is damaged")
                yield X[numbers.start : numbers.stop]

        return layer_values(net(), "3", Batches(len(X), SIZE, broken), progress=False)

    found = run_ranks(2, work)
    assert found[1].startswith("ValueError: image 4 is damaged")
    assert found[0].startswith("RankLost: another rank has ended")


def test_rows_take_the_memory_of_their_tensor(expected: Tensor) -> None:
    with KeptRows(count=len(X)) as kept:
        kept.fill(Batches.of(X, SIZE), lambda part: part.flatten(1), what="", progress=False)
        found = kept.joined()
        assert kept.rows is not None
        assert found.data_ptr() == kept.rows.data_ptr()  # no copy
        assert torch.equal(found, X.flatten(1))


def test_a_file_is_not_larger_than_what_memory_may_be_taken_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("absence_plugins.methods.kept_rows.LARGEST", 2 * SIZE * 16)  # two batches of 16 bytes a row
    with KeptRows(Checkpoint(tmp_path, {}, "values"), len(X)) as kept:
        kept.fill(Batches.of(X, SIZE), lambda part: part[:, 0, 0, :4], what="", progress=False)
    assert len(list(tmp_path.glob("values-*.safetensors"))) == 4


# -- sums -------------------------------------------------------------------------------------------------------------


def votes(folder: Path | None, stop: int) -> tuple[Tensor, int] | None:
    sums = RankSums(None if folder is None else Checkpoint(folder, {}, "votes", save_every=0), "votes")
    with sums.keeping() as save:
        for at in range(0, stop, SIZE):
            numbers = range(at, min(at + SIZE, len(X)))
            if sums.wants(numbers):
                sums.add(numbers, X[numbers.start : numbers.stop].sign().double().sum(0))
                save()
    return sums.total()


def test_sums_are_exact_for_any_number_of_ranks(tmp_path: Path) -> None:
    total = X.sign().double().sum(0)
    run_ranks(4, votes, tmp_path, 12)
    for world in (2, 1, 3):
        for found, images in run_ranks(world, votes, tmp_path, len(X)):
            assert torch.equal(found, total)
            assert images == len(X)


# -- influence --------------------------------------------------------------------------------------------------------


@lru_cache
def pairs() -> DirectionPairs:
    features = torch.randn(30, 3, 3, 5, generator=torch.Generator().manual_seed(1))
    return DirectionPairs(2, starts=1).fit(features)


def effects(data: Any, test: str, folder: Path | None) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(180, 3))
    return influence(
        pairs(),
        model,
        "0",
        data,
        batch_size=SIZE,
        n_permutations=99,
        test=test,
        correction="bonferroni",
        level=0.5,
        checkpoint=folder,
    )  # type: ignore[arg-type]


class Counted(torch.utils.data.Dataset[Any]):
    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, number: int) -> Any:
        self.read.append(number)
        return X[number], 0


@pytest.mark.filterwarnings("ignore::absence_plugins.core.AbsenceWarning")
@pytest.mark.parametrize("test", ["step", "rcav"])
def test_effects_are_the_same_bits_for_any_number_of_ranks(test: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    expected = effects(X, test, None)

    def work() -> Any:
        data = Counted()
        found = effects(data, test, tmp_path / "state")
        return found.to_dict(), data.read

    for found, read in run_ranks(3, work):
        assert found == expected.to_dict()
        assert len(set(read)) < len(X) / 2  # of each pass a third, and the first batch
    loader = torch.utils.data.DataLoader(Counted(), batch_size=SIZE)
    for found in run_ranks(2, lambda: effects(loader, test, None).to_dict()):
        assert found == expected.to_dict()
    assert effects(X, test, tmp_path / "state2").to_dict() == expected.to_dict()

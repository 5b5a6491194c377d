"""Rows of samples that are computed batch by batch: shared out among ranks, and kept in files where a folder is named.

Every rank computes batches of its own and saves them in files of its own. When the work begins, the ranks tell each
other which rows there are, of however many ranks that made them, and take turns on the missing batches; at the end they
exchange the rows. A rank touches the memory of its own rows only, unless it asks for all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise

import torch
from torch import Tensor
from tqdm.auto import tqdm

from absence_plugins.core.interrupts import uncut
from absence_plugins.core.ownership import own_folder
from absence_plugins.methods.batches import Batches
from absence_plugins.methods.checkpoint import Checkpoint
from absence_plugins.methods.ranks import broadcast, gather, own_share, ranks, send_to_first

NOBODY = -1
LARGEST = 2**26  # bytes of a file: writing one takes its memory again


class KeptRows:
    """Rows [N, ...], in one tensor; with a checkpoint also in files, so that they are computed once.

    To be opened (``with``), by all ranks, before it is asked for anything: the folder is owned, and what it holds is
    read. What was put in is saved when it is due, and when the block ends in whatever way.

    Args:
        checkpoint: of the work; None: the rows are not kept.
        count: N; None: not known, and memory grows by doubling.

    Raises:
        ValueError: (when opened) the ranks were started with different work.
        RankLost: another rank has ended.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> with KeptRows(Checkpoint(folder, {}, "values"), 3) as kept:
    ...     kept.put(range(2), torch.zeros(2, 2))
    >>> with KeptRows(Checkpoint(folder, {}, "values"), 3) as kept:
    ...     kept.put(range(2, 3), torch.ones(1, 2))
    ...     kept.joined().tolist()
    [[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]]
    """

    def __init__(self, checkpoint: Checkpoint | None = None, count: int | None = None) -> None:
        self.checkpoint, self.count = checkpoint, count
        self.rows: Tensor | None = None  # at least N of them
        self.owners = torch.full(
            (0 if count is None else count,), NOBODY, dtype=torch.int32
        )  # the rank that has each row
        self.pending: list[Tensor] = []  # numbers of rows that are not in a file
        self.rank, self.world = 0, 1
        self._turn, self._opened = 0, 0
        self._leaving = ExitStack()

    def __len__(self) -> int:
        """Rows that some rank has."""
        return int((self.owners != NOBODY).sum())

    def __enter__(self) -> KeptRows:
        self._opened += 1
        if self._opened > 1:
            return self
        with ExitStack() as stack:
            stack.enter_context(own_folder(None if self.checkpoint is None else self.checkpoint.folder))
            stack.enter_context(own_share())
            self._load()
            self._leaving = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._opened -= 1
        if not self._opened:
            with self._leaving:
                self._save()

    def wants(self, numbers: range) -> bool:
        """Whether this rank is the one to compute a batch; to be asked of every batch, in their order."""
        if len(self._missing(numbers)) == 0:
            return False
        self._turn += 1
        return (self._turn - 1) % self.world == self.rank

    def put(self, numbers: range, rows: Tensor) -> None:
        """Take in the rows [n, ...] of samples; those that are there stay as they are."""
        new = self._missing(numbers)
        buffer = self._reserve(numbers.stop, rows.shape[1:], rows.dtype)
        buffer[new] = rows[new - numbers.start].to(buffer.device)
        with uncut():
            self.owners[new] = self.rank
            self.pending.append(new)
        if self.checkpoint is None:
            self.pending.clear()
        elif self.checkpoint.is_due or sum(map(len, self.pending)) * rows[:1].nbytes >= LARGEST:
            self._save()

    def joined(self, *, first_only: bool = False) -> Tensor:
        """All rows [N, ...], of which every rank has written its own: all ranks must ask together.

        first_only: rank 0 gets them, the others [0, ...]: for rows that are too many for every rank's memory.

        Raises:
            RankLost: another rank has ended.
            RuntimeError: rows are missing.
        """
        self._share_owners()
        missing = len(self._missing(range(len(self.owners))))
        if missing or self.rows is None:
            raise RuntimeError(f"{missing} of {len(self.owners)} rows are missing; run the work again to resume")
        changes = [0, *(torch.diff(self.owners).nonzero()[:, 0] + 1).tolist(), len(self.owners)]
        exchange = send_to_first if first_only else broadcast
        for start, stop in pairwise(changes) if self.world > 1 else ():
            exchange(self.rows[start:stop], int(self.owners[start]))
        return self.rows[: 0 if first_only and self.rank else len(self.owners)]

    def fill(self, batches: Batches, make: Callable[[Tensor], Tensor], *, what: str, progress: bool) -> None:
        """Compute what is missing: this rank's share of the batches, each by ``make``; the bar counts those of all."""
        wanted = [numbers for numbers in batches.numbers if self.wants(numbers)]
        done = len(self)
        with tqdm(total=batches.count, initial=done, desc=what, disable=not progress or self.rank > 0) as bar:
            for numbers, batch in zip(wanted, self._read(batches, wanted), strict=True):
                self.put(numbers, make(batch))
                bar.update(min(self.world * len(numbers), batches.count - bar.n))

    @staticmethod
    def _read(batches: Batches, wanted: list[range]) -> Iterator[Tensor]:
        yield from batches.read(wanted) if wanted else ()

    def _missing(self, numbers: range) -> Tensor:
        """Those of the rows that no rank has."""
        if (more := numbers.stop - len(self.owners)) > 0:
            self.owners = torch.cat([self.owners, torch.full((more,), NOBODY, dtype=torch.int32)])
        return (self.owners[numbers.start : numbers.stop] == NOBODY).nonzero()[:, 0] + numbers.start

    def _reserve(self, least: int, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Memory of at least so many rows; what is not written yet is not touched, and so takes none."""
        if self.rows is None or len(self.rows) < least:
            before = self.rows
            many = max(self.count or 0, least, 0 if before is None else 2 * len(before))
            with torch.inference_mode(False):  # the rows can take part in autograd
                self.rows = torch.empty(many, *shape, dtype=dtype)
                if before is not None:
                    self.rows[: len(before)] = before
        return self.rows

    def _load(self) -> None:
        """Read this rank's share of the files, and learn what the others have read."""
        self.rank, self.world = ranks()
        files: list[str] = []
        work = ""
        if (keeper := self.checkpoint) is not None:
            files = sorted(path.stem for path in keeper.folder.glob(f"{keeper.work}-*.safetensors"))
            work = json.dumps(keeper.settings, sort_keys=True)
        everyone = gather((files, work, self.count))
        for rank, (_, other, count) in enumerate(everyone):
            if (other, count) != everyone[0][1:]:
                raise ValueError(
                    f"the ranks of this torchrun do not do the same work: rank {rank} has {count} samples and "
                    f"{other or 'no checkpoint'}, rank 0 has {everyone[0][2]} and {everyone[0][1] or 'none'}; start all "
                    "of them with the same model, images and options"
                )
        for place, name in enumerate(sorted(set().union(*(there for there, _, _ in everyone)))):
            holders = [rank for rank, (there, _, _) in enumerate(everyone) if name in there]
            if keeper is not None and holders[place % len(holders)] == self.rank and (part := keeper.load(name)):
                self._take(part)
        self._share_owners()

    def _take(self, part: dict[str, Tensor]) -> None:
        """Take in the rows of a file."""
        rows = part["rows"]
        numbers = part["numbers"] if "numbers" in part else torch.arange(len(rows)) + part["first"]  # as once written
        self._missing(range(int(numbers.max()) + 1))
        self._reserve(len(self.owners), rows.shape[1:], rows.dtype)[numbers] = rows
        self.owners[numbers] = self.rank

    def _share_owners(self) -> None:
        """Tell the other ranks which rows this one has; of a row that several have, the first is the owner."""
        if self.world == 1:
            return
        own = (self.owners == self.rank).nonzero()[:, 0].int()
        shape = None if self.rows is None else (self.rows.shape[1:], self.rows.dtype)
        everyone = gather((own, len(self.owners), shape))
        self._missing(range(max(count for _, count, _ in everyone)))
        for rank, (rows, _, _) in reversed([*enumerate(everyone)]):
            self.owners[rows.long()] = rank
        if known := [shape for _, _, shape in everyone if shape is not None]:
            self._reserve(len(self.owners), *known[0])

    def _save(self) -> None:
        """Move what is pending into a file of its own."""
        moved = list(self.pending)
        if moved and self.checkpoint is not None and self.rows is not None:
            numbers = torch.cat(moved)
            name = f"{self.checkpoint.work}-{int(numbers[0]):09d}"
            self.checkpoint.save(name, {"rows": self.rows[numbers], "numbers": numbers})
            del self.pending[: len(moved)]

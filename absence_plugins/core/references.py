"""ReferenceSet: a sample of real inputs that *have* what another input lacks.

A black image cannot show that something is missing: nothing differs from it where nothing is. A real
image of a contrasting class can, and the nearest ones differ from x in little else (docs/concepts.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from absence_plugins.core.blank import find_blanks, settle_blanks
from absence_plugins.core.checks import check_integer, check_seed
from absence_plugins.core.dataset_items import has_several_inputs, image_and_label, reservoir, single_samples
from absence_plugins.core.empties import blank_value
from absence_plugins.core.kinds import Kind, TableKind, TextKind
from absence_plugins.core.labels import check_labels, find_fault, stack_labels
from absence_plugins.core.randomness import seeded
from absence_plugins.core.scales import Scale, check_scales, measure_scale
from absence_plugins.core.spaces import Metric, Space, check_space, measure_distances
from absence_plugins.core.table_rows import read_table
from absence_plugins.core.table_space import TableSpace

Images = Tensor | tuple[Tensor, ...]


class ReferenceSet:
    """A seeded set of reference inputs from which the nearest ones to an input are drawn.

    Args:
        images: [N, ...], or a tuple of such tensors for models with several inputs (drawn jointly).
        labels: class index of every sample [N]; or, where several labels can be true at once, 0 or 1 for each of K
            labels [N, K]. Needed as soon as classes play a role.
        empty: value of a blank pixel: a number, one value per channel, an image, or an object with
            ``mean`` and ``std`` (a torchvision ``Normalize``: then the value of black after it). One per
            input, as a tuple, if there are several inputs. Of a table, a number or one per entry.
        k: how many references :meth:`nearest` returns.
        contrast: the class to compare with: a class index, or a mapping {target class: contrast class};
            None: every class but the target's. Of labels [N, K]: samples that have the contrast label and lack the
            target's; None: samples that lack the target's.
        seed: for :meth:`random`.
        nearest_in: a :class:`~absence_plugins.FeatureSpace`, a network's features, in which the nearest are searched;
            None: pixels, or the :class:`~absence_plugins.TableSpace` of a table; of texts how many places have another
            token. On photographs the nearest in pixels
            share little more than brightness (docs/how-to/references.md).
        kind: what the entries are, if not pixels: a :class:`~absence_plugins.TableKind`, ``TextKind``, ``SignalKind``
            or ``VolumeKind``. It decides what counts as missing, and how an explanation is drawn.

    Raises:
        ValueError: no samples, NaN, a number of labels that is not N, labels [N, K] other than 0 and 1, a contrast
            class without labels or without samples.

    >>> references = ReferenceSet(torch.tensor([[0.0], [1.0], [4.0]]), torch.tensor([0, 1, 1]), k=1)
    >>> references.nearest(torch.tensor([[1.5]]), target=1)
    tensor([[[0.]]])
    >>> several = ReferenceSet(torch.tensor([[0.0], [1.0], [4.0]]), torch.tensor([[1, 0], [1, 1], [0, 1]]), k=1)
    >>> several.nearest(torch.tensor([[1.5]]), target=1), several.is_multi_label
    (tensor([[[0.]]]), True)
    """

    is_made = False  # from the inputs themselves, so that nothing can be missing compared with them
    empty_words = ""  # what was chosen for `empty`, as "the median of each column"; "" where it is as it was given

    def __init__(
        self,
        images: Images,
        labels: Tensor | Sequence[int] | Sequence[Sequence[int]] | None = None,
        *,
        empty: Any = 0.0,
        k: int = 8,
        contrast: int | Mapping[int, int] | None = None,
        seed: int = 0,
        nearest_in: Space | None = None,
        kind: Kind | None = None,
    ) -> None:
        self.nearest_in = check_space(nearest_in)
        if kind is not None and not isinstance(kind, Kind):
            raise TypeError(
                f"kind must be a TableKind, TextKind, SignalKind or VolumeKind, got a {type(kind).__name__}"
            )
        self.kind = kind
        self._features: tuple[Any, Tensor] | None = None
        self._scales: tuple[Scale | None, ...] | None = None
        self.is_tuple = isinstance(images, tuple)
        self.images: tuple[Tensor, ...] = images if isinstance(images, tuple) else (images,)
        for part in self.images:
            if not isinstance(part, Tensor):
                raise TypeError(f"reference images must be a tensor [N, ...], got {type(part).__name__}")
        self.images = tuple(part.detach() for part in self.images)
        sizes = {len(part) for part in self.images}
        if len(sizes) != 1 or sizes == {0}:
            raise ValueError(
                "a ReferenceSet needs samples, the same number for every input; got "
                f"{[tuple(p.shape) for p in self.images]}"
            )
        if kind is not None:
            if len(self.images) != 1:
                raise ValueError(
                    f"a {kind.name} is one input, and the references have {len(self.images)}; leave kind out"
                )
            kind.check(self.images[0])
        if isinstance(kind, TableKind) and nearest_in is None:  # names the column of NaN
            self.nearest_in = TableSpace(kind, self.images[0])
        for part in self.images:
            if part.is_floating_point() and not torch.isfinite(part).all():
                bad = int((~torch.isfinite(part.reshape(len(part), -1))).any(1).nonzero()[0])
                what = "image" if kind is None else kind.name
                raise ValueError(f"reference {what} {bad} holds NaN or infinite values; leave it out")
        self.labels = None if labels is None else check_labels(labels, len(self))
        self.k, self.seed, self.contrast = check_integer("k", k), check_seed(seed), contrast
        empties = empty if isinstance(empty, tuple) and self.is_tuple else (empty,) * len(self.images)
        if len(empties) != len(self.images):
            raise ValueError(f"{len(empties)} empty values for {len(self.images)} inputs; pass one per input")
        self.empty = tuple(blank_value(value, part, kind) for value, part in zip(empties, self.images, strict=True))
        if contrast is not None:
            for named in (*contrast, *contrast.values()) if isinstance(contrast, Mapping) else (contrast,):
                if isinstance(named, bool) or not hasattr(named, "__index__"):
                    raise TypeError(
                        f"contrast={contrast!r} must be a class index, or a mapping of them; names are in "
                        "dataset.class_to_idx"
                    )
            for named in contrast.values() if isinstance(contrast, Mapping) else (contrast,):
                self._members(named)

    def __len__(self) -> int:
        return len(self.images[0])

    @property
    def is_multi_label(self) -> bool:
        """Whether several labels can be true of one sample: labels [N, K], of which a row has several or none."""
        return self.labels is not None and self.labels.dim() == 2

    def __repr__(self) -> str:
        shapes = ", ".join(str(tuple(part.shape[1:])) for part in self.images)
        classes = "no labels"
        if self.labels is not None and self.is_multi_label:
            classes = f"{self.labels.shape[1]} independent labels"
        elif self.labels is not None:
            classes = f"{len(set(self.labels.tolist()))} classes"
        space = "" if self.nearest_in is None else f", {getattr(self.nearest_in, 'words', 'nearest in features')}"
        return f"ReferenceSet({len(self)} samples of shape {shapes}, {classes}, k={self.k}, contrast={self.contrast}{space})"

    @classmethod
    def from_dataset(
        cls, dataset: Any, *, max_samples: int = 2000, seed: int = 0, empty: Any = None, **options: Any
    ) -> ReferenceSet:
        """A seeded random sample of a torch Dataset, or of what a DataLoader yields.

        Items are ``image``, ``(image, label)`` or a dictionary of them, as the data sets of Hugging Face have; with
        several inputs ``(image, ..., label)`` is written ``((image, image), label)``. Labels are class indices, or 0
        and 1 for each of K. ``empty=None`` takes for a blank pixel what a black picture becomes on its way through this
        data set, wherever it is normalized; where that cannot be found out, 0, with a warning if the images say
        otherwise. A loader is read once and reservoir-sampled, so only ``max_samples`` images are held; ``options`` as
        in the constructor.

        Raises:
            ValueError: an empty data set; labels that are no class indices (the sample is named).
            TypeError: items that are no tensors.

        >>> data = torch.utils.data.TensorDataset(torch.zeros(5, 1, 2, 2), torch.arange(5))
        >>> ReferenceSet.from_dataset(data, max_samples=3)
        ReferenceSet(3 samples of shape (1, 2, 2), 3 classes, k=8, contrast=None)
        """
        check_integer("max_samples", max_samples)
        generator = torch.Generator().manual_seed(seed)
        is_loader = isinstance(dataset, torch.utils.data.DataLoader)
        is_stream = isinstance(dataset, torch.utils.data.IterableDataset) or not hasattr(dataset, "__getitem__")
        found = find_blanks(dataset) if empty is None else ()
        with seeded(seed):  # loaders and augmentations draw from the global random states
            if is_loader or is_stream:
                items = reservoir(single_samples(dataset) if is_loader else dataset, max_samples, generator)
            else:
                order = torch.randperm(len(dataset), generator=generator)[:max_samples].sort().values
                items = [(int(index), dataset[int(index)]) for index in order]
        if not items:
            raise ValueError("the dataset is empty; references need samples")
        names = [f"sample {place}" for place, _ in items]
        inputs, labels = zip(
            *(image_and_label(item, name) for (_, item), name in zip(items, names, strict=True)), strict=True
        )
        parts = tuple(torch.stack(part) for part in zip(*inputs, strict=True))
        images: Images = parts if has_several_inputs(items[0][1]) else parts[0]
        if empty is None:
            empty = settle_blanks(dataset, found, parts)
            empty = empty if isinstance(images, tuple) else empty[0]
        return cls(images, stack_labels(labels, names), empty=empty, seed=seed, **options)

    @classmethod
    def from_table(
        cls,
        rows: Any,
        labels: Any = None,
        *,
        columns: TableKind | Sequence[str] | None = None,
        distance: Literal["standardized", "gower"] = "standardized",
        empty: Any = "median",
        **options: Any,
    ) -> ReferenceSet:
        """References that are rows of a table, as the network gets them: one entry per number, scaled where it is.

        Args:
            rows: [N, E], a tensor, an array, lists, or a pandas DataFrame of numbers.
            labels: as in the constructor.
            columns: a :class:`~absence_plugins.TableKind` (``table_kind`` makes one), or the names of columns of
                numbers; None: those of the DataFrame.
            distance: in which the nearest are searched, as of a :class:`~absence_plugins.TableSpace`.
            empty: what counts as nothing, as in :func:`~absence_plugins.core.table_empties.choose_empty`: "median",
                "mode", "mean", a value, or {column: one of these}; the set says it as ``empty_words``.
            options: ``k``, ``contrast``, ``seed``, ``nearest_in`` of the constructor.

        Warns (AbsenceWarning): the rows do not seem to be scaled as the columns say.

        Raises:
            ValueError: NaN or infinite values (the column is named), another number of columns, or other columns, than
                the rows have; what ``choose_empty`` and the constructor reject.

        >>> rows = torch.tensor([[20.0, 1.0], [40.0, 5.0]])
        >>> references = ReferenceSet.from_table(rows, [0, 1], columns=["age", "size"], k=1)
        >>> references.empty, references.empty_words
        ((tensor([30.,  3.]),), 'the median of each column')
        """
        table = read_table(rows, columns, empty)
        options = {"nearest_in": TableSpace(table.kind, table.rows, distance), **options}
        made = cls(table.rows, labels, empty=table.empty, kind=table.kind, **options)
        made.empty_words = table.empty_words
        return made

    def nearest(self, x: Images, target: Any = None, *, label: Any = None) -> Images:
        """The k references nearest to every sample of x: in input space (squared Euclidean distance), or by
        ``nearest_in`` in a network's features.

        They are of the contrast class if one is named, else of any class but ``target``'s, else (no
        target, or no labels) any sample; ``label`` (one class, or one per sample) asks for that very class instead.
        Equal distances: the lower index first. Several inputs: distances add up. The same for a batch
        and for its samples one by one; memory is bounded.

        x: [B, ...] or a tuple; returns [B, k, ...] on x's device, nearest first.

        Raises:
            ValueError: another shape, type or range of values than the references', classes asked for without labels,
                fewer than k references of a class.
        """
        return self._gather(x, self.nearest_indices(x, target, label=label))

    def random(self, x: Images, target: Any = None, *, label: Any = None) -> Images:
        """k random references per sample from the same pool as :meth:`nearest`; the same seed, the same draw."""
        generator = torch.Generator().manual_seed(self.seed)
        pools = self._pools(self._inputs(x)[0].shape[0], target, label)
        self._check_scales(self._inputs(x))
        rows = [pool[torch.randperm(len(pool), generator=generator)[: self.k]] for pool in pools]
        return self._gather(x, torch.stack(rows))

    def nearest_indices(self, x: Images, target: Any = None, *, label: Any = None) -> Tensor:
        """Indices [B, k] into the set, as :meth:`nearest` draws them."""
        inputs = self._inputs(x)
        self._check_scales(inputs)
        orders = self._ranked(inputs, self._pools(inputs[0].shape[0], target, label))
        return torch.stack([order[: self.k] for order in orders])

    def _check_scales(self, inputs: tuple[Tensor, ...]) -> None:
        if self._scales is None:
            self._scales = tuple(measure_scale(part, self.kind) for part in self.images)
        check_scales(inputs, self._scales, kind=self.kind)

    def _ranked(self, inputs: tuple[Tensor, ...], pools: Sequence[Tensor]) -> list[Tensor]:
        """Each pool's indices, nearest to the sample it belongs to first."""
        points, own = (inputs, self.images) if self.nearest_in is None else self._in_features(inputs)
        # token ids are names, no quantities
        own_metric: Metric = "different" if isinstance(self.kind, TextKind) else "squared"
        metric = own_metric if self.nearest_in is None else self.nearest_in.metric
        orders = []
        for row, pool in enumerate(pools):
            distance = sum(
                measure_distances(part[row], there, pool, metric) for part, there in zip(points, own, strict=True)
            )
            assert isinstance(distance, Tensor)
            orders.append(pool[distance.sort(stable=True).indices])
        return orders

    def _in_features(self, inputs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The features of inputs and references; the latter are kept until the model's weights change."""
        assert self.nearest_in is not None
        key = (self.nearest_in.state(), tuple(part.dtype for part in inputs))
        if self._features is None or self._features[0] != key:
            own = tuple(part.to(given.dtype) for part, given in zip(self.images, inputs, strict=True))
            self._features = (key, self.nearest_in.points(*own))
        return (self.nearest_in.points(*inputs),), (self._features[1],)

    def _inputs(self, x: Images) -> tuple[Tensor, ...]:
        inputs = x if isinstance(x, tuple) else (x,)
        if len(inputs) != len(self.images):
            raise ValueError(
                f"the model takes {len(inputs)} inputs, the references have {len(self.images)}; give the ReferenceSet "
                "a tuple of as many"
            )
        for part, own in zip(inputs, self.images, strict=True):
            if part.shape[1:] != own.shape[1:]:
                raise ValueError(
                    f"inputs have shape {tuple(part.shape[1:])}, references {tuple(own.shape[1:])}; build the "
                    "ReferenceSet with the model's own preprocessing"
                )
        if inputs[0].shape[0] == 0:
            raise ValueError("the batch is empty; references need at least one sample to be near to")
        return inputs

    def _pools(self, samples: int, target: Any, label: Any) -> list[Tensor]:
        """Candidate indices for every sample."""
        asked = _per_sample(label, samples, "label")
        targets = _per_sample(target, samples, "target")
        pools: dict[tuple[int | None, int | None], Tensor] = {}
        named = label is not None
        result = []
        for own, wanted in zip(targets, asked, strict=True):
            if wanted is None and self.contrast is not None:
                wanted = self._contrast_of(own)
                if wanted == own:
                    raise ValueError(
                        f"class {own} would be compared with itself; name another contrast class than the target"
                    )
            lacked = own if wanted is None or (self.is_multi_label and not named) else None
            if (lacked, wanted) not in pools:
                pools[lacked, wanted] = self._members(wanted, lacked)
            result.append(pools[lacked, wanted])
        return result

    def _contrast_of(self, target: int | None) -> int:
        if not isinstance(self.contrast, Mapping):
            assert self.contrast is not None
            return self.contrast
        if target is None or target not in self.contrast:
            raise ValueError(f"contrast={dict(self.contrast)} names no class to compare target {target} with; add it")
        return self.contrast[target]

    def _members(self, label: int | None, lacked: int | None = None) -> Tensor:
        """The samples that have a label (None: any) and lack another; at least k."""
        members, name = torch.ones(len(self), dtype=torch.bool), "samples"
        if label is not None:
            members, name = members & self._has(label), f"samples of class {label}"
        if lacked is not None and self.labels is not None:  # unlabeled references all count as contrast
            name += f" outside class {lacked}" if label is None else f" that lack class {lacked}"
            members = members & ~self._has(lacked)
        if int(members.sum()) < self.k:
            raise ValueError(
                f"{int(members.sum())} reference {name}, but k={self.k} are asked for; add samples, raise max_samples, "
                "or lower k"
            )
        return members.nonzero().flatten()

    def _has(self, label: int) -> Tensor:
        """Which samples have a label [N]."""
        if self.labels is None:
            raise ValueError(
                f"class {label} is named, but the references have no labels; pass ReferenceSet(images, labels)"
            )
        if not self.is_multi_label:
            return self.labels == label
        if not 0 <= label < self.labels.shape[1]:
            raise ValueError(
                f"the references have {self.labels.shape[1]} labels, 0 to {self.labels.shape[1] - 1}, and no {label}"
            )
        return self.labels[:, label] == 1

    def _gather(self, x: Images, indices: Tensor) -> Images:
        inputs = self._inputs(x)
        parts = tuple(
            own[indices.to(own.device)].to(device=part.device, dtype=part.dtype)
            for own, part in zip(self.images, inputs, strict=True)
        )
        return parts if isinstance(x, tuple) else parts[0]


def _per_sample(value: Any, samples: int, name: str) -> list[int | None]:
    """One class (or None) per sample."""
    if value is None:
        return [None] * samples
    if isinstance(value, (str, bytes)):
        raise ValueError(f"{name}={value!r} must be a class index; names are in dataset.class_to_idx")
    entries = torch.as_tensor(value).flatten()
    wrong = find_fault(entries)
    if wrong is not None:
        raise ValueError(f"{name} must be a class index, got {entries[wrong[0]].item():.6g}; classes count from 0")
    if len(entries) not in (1, samples):
        raise ValueError(f"{len(entries)} classes for {samples} samples; pass one per sample, or one for all")
    classes: list[int | None] = entries.long().tolist()
    return classes * samples if len(classes) == 1 else classes

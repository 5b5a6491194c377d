"""Columns from names, data frames and scalers, what counts as nothing in each, and references from rows."""

from __future__ import annotations

import math
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, QuantileTransformer, RobustScaler, StandardScaler

from absence_plugins import Column, ReferenceSet, TableKind, TableSpace, table_kind
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.table_empties import choose_empty

NAMES = ["age", "size", "weight"]
ROWS = np.array([[20.0, 1.0, 5.0], [40.0, 5.0, 5.0], [70.0, 5.0, 5.0], [90.0, 7.0, 5.0]])


class Frame:
    """What is used of a pandas DataFrame."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self.columns, self.data = list(columns), columns
        self.dtypes = ["object" if isinstance(v[0], str) else "float64" for v in columns.values()]

    def __getitem__(self, name: str) -> Any:
        return self.data[name]

    def to_numpy(self) -> Any:
        return np.array(list(self.data.values())).T


@pytest.mark.parametrize(
    "scaler",
    [
        StandardScaler(), StandardScaler(with_mean=False), StandardScaler(with_std=False), MinMaxScaler(),
        MinMaxScaler((-1, 3)), RobustScaler(), RobustScaler(with_centering=False), RobustScaler(with_scaling=False),
        MaxAbsScaler(),
    ],
    ids=str,
)  # fmt: skip
def test_a_scaler_shows_every_value_in_its_own_unit(scaler: Any) -> None:
    scaled = torch.tensor(scaler.fit_transform(ROWS))
    kind = table_kind(NAMES, scaler=scaler, units={"age": "years"})
    for row, own in zip(scaled, ROWS, strict=True):
        for column, entry, value in zip(kind.columns, row, own, strict=True):
            assert entry.item() * column.std + column.mean == pytest.approx(value, abs=1e-12)
    assert kind.columns[0].says(scaled[2, :1]) == "70 years"
    back = torch.tensor(scaler.inverse_transform(np.array([[0.3, -2.0, 9.0]])))[0]
    means, stds = (
        torch.tensor([getattr(c, name) for c in kind.columns], dtype=torch.float64) for name in ("mean", "std")
    )
    torch.testing.assert_close(
        torch.tensor([0.3, -2.0, 9.0], dtype=torch.float64) * stds + means, back, rtol=1e-12, atol=0
    )


def test_wrong_scalers_are_rejected() -> None:
    scaler = StandardScaler().fit(ROWS)
    with pytest.raises(ValueError, match="fitted on 3 columns, and the table has 2 of numbers"):
        table_kind(NAMES[:2], scaler=scaler)
    with pytest.raises(ValueError, match="the StandardScaler is not fitted"):
        table_kind(NAMES, scaler=StandardScaler())
    with pytest.raises(TypeError, match="got a QuantileTransformer"):
        table_kind(NAMES, scaler=QuantileTransformer(n_quantiles=4).fit(ROWS))
    with pytest.raises(TypeError, match="got a float"):
        table_kind(NAMES, scaler=2.0)
    scaler.feature_names_in_ = np.array(["age", "weight", "size"], dtype=object)
    with pytest.raises(ValueError, match="column 1 of the StandardScaler is 'weight', of the table 'size'"):
        table_kind(NAMES, scaler=scaler)
    scaler.feature_names_in_ = np.array(NAMES, dtype=object)
    assert table_kind(NAMES, scaler=scaler).columns[0].mean == 55
    # Fitted on codes as well: they would be no codes.
    with pytest.raises(ValueError, match="scaled categories are no categories"):
        table_kind(NAMES, categories={"weight": ["light", "heavy"]}, one_hot=False, scaler=scaler)


def test_a_scaler_of_the_number_columns_leaves_categories_alone() -> None:
    scaler = StandardScaler().fit(ROWS[:, :2])
    kind = table_kind(["age", "color", "size"], categories={"color": ["red", "blue"]}, scaler=scaler)
    assert [column.mean for column in kind.columns] == [55, 0, 4.5]
    assert kind.entries == 4


def test_entries_of_a_category_become_one_column() -> None:
    names = ["age", "color_blue", "color_red", "size"]
    kind = table_kind(names, categories={"color": ["blue", "red"]})
    assert kind.columns == (Column("age"), Column("color", ("blue", "red")), Column("size"))
    with pytest.raises(ValueError, match="must stand together, and its categories be listed in their order"):
        table_kind(names, categories={"color": ["red", "blue"]})
    with pytest.raises(ValueError, match="must stand together"):
        table_kind(["color_blue", "age", "color_red"], categories={"color": ["blue", "red"]})
    with pytest.raises(ValueError, match="no entry 'color_green'"):
        table_kind(names, categories={"color": ["blue", "green", "red"]})


def test_wrong_names_are_rejected() -> None:
    with pytest.raises(ValueError, match="categories names 'colour', and there is no such column: color"):
        table_kind(["age", "color"], categories={"colour": ["red"]})
    with pytest.raises(ValueError, match="units names 'color', and there is no such number column: age"):
        table_kind(["age", "color"], categories={"color": ["red"]}, units={"color": "nm"})
    with pytest.raises(ValueError, match="two columns are called 'age'"):
        table_kind(["age", "age"])
    with pytest.raises(ValueError, match="'red' twice"):
        table_kind(["color"], categories={"color": ["red", "red"]})
    with pytest.raises(ValueError, match="none among its categories"):
        table_kind(["color"], categories={"color": []})
    with pytest.raises(ValueError, match="pass all of them"):
        table_kind(["color"], categories={"color": "red"})
    with pytest.raises(TypeError, match="got a str"):
        table_kind("age")
    with pytest.raises(TypeError, match="the column 3 must be called by a text"):
        table_kind(["age", 3])


def test_a_frame_names_the_columns_without_pandas() -> None:
    frame = Frame({"age": [1.0, 2.0, 3.0], "color": ["red", "blue", "red"]})
    assert table_kind(frame).columns == (Column("age"), Column("color", ("blue", "red")))
    assert table_kind(frame, one_hot=False).entries == 2
    assert "pandas" not in vars(sys.modules["absence_plugins.core.table_kinds"])


@pytest.mark.needs("pandas")
def test_pandas_frames_and_their_dummies() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pytest.importorskip("pandas").DataFrame(
        {"age": [1.0, 2.0, 4.0], "color": ["red", "blue", None], "grade": [1, 2, 2]}
    )
    frame["grade"] = pandas.Categorical(frame["grade"], categories=[2, 1])
    kind = table_kind(frame)
    assert [column.categories for column in kind.columns] == [(), ("blue", "red"), ("2", "1")]
    dummies = pandas.get_dummies(frame)
    references = ReferenceSet.from_table(dummies, pandas.Series([0, 1, 1], index=[7, 3, 9]), columns=kind, k=1)
    assert references.images[0].tolist() == [[1, 0, 1, 0, 1], [2, 1, 0, 1, 0], [4, 0, 0, 1, 0]]
    assert table_kind(list(dummies), categories={"color": ["blue", "red"], "grade": [2, 1]}).columns == kind.columns
    plain = ReferenceSet.from_table(dummies[["age"]], k=1)
    assert plain.kind is not None
    assert plain.kind.columns == (Column("age"),)
    with pytest.raises(ValueError, match="the rows are no numbers"):
        ReferenceSet.from_table(frame[["age", "color"]], columns=["age", "color"])
    with pytest.raises(ValueError, match="column 0 of the DataFrame is 'size', of the table 'age'"):
        ReferenceSet.from_table(pandas.DataFrame({"size": [1.0], "age": [2.0]}), columns=["age", "size"])
    with pytest.raises(ValueError, match="the DataFrame has 1 columns, and the table's columns take 2 entries"):
        ReferenceSet.from_table(dummies[["age"]], columns=["age", "size"])


def test_a_set_from_a_table_finds_by_the_chosen_distance_and_says_what_is_empty() -> None:
    rows = torch.tensor(ROWS)
    references = ReferenceSet.from_table(rows, [0, 0, 1, 1], columns=NAMES, distance="gower", k=1, contrast=1)
    assert isinstance(references.nearest_in, TableSpace)
    assert references.nearest_in.distance == "gower"
    assert references.nearest(rows[:1]).tolist() == [[[70, 5, 5]]]
    assert references.empty[0].tolist() == [55, 5, 5]
    assert references.empty_words == "the median of each column"
    several = ReferenceSet.from_table(ROWS, [[1, 0], [1, 1], [0, 1], [0, 1]], columns=NAMES, k=2)
    assert several.is_multi_label
    assert several.nearest_indices(rows[:1], target=0).tolist() == [[2, 3]]
    assert ReferenceSet(rows, kind=table_kind(NAMES)).empty_words == ""


@pytest.mark.parametrize(
    ("empty", "wanted", "words"),
    [
        ("median", [55, 5, 5], "the median of each column"),
        ("mean", [55, 4.5, 5], "the mean of each column"),
        ("mode", [20, 5, 5], "the most common value of each column"),
        (0, [0, 0, 0], "0 in every column"),
        ({"age": 0}, [0, 5, 5], "0 in 'age', elsewhere the median of each column"),
        ({"age": "mean", "size": 0, "weight": 0}, [55, 0, 0], "the mean in 'age', 0 in 'size', 'weight'"),
        ({}, [55, 5, 5], "the median of each column"),
        (torch.tensor([1.0, 2.0, 3.0]), [1, 2, 3], "a stated row"),
        ([1, 2, 3], [1, 2, 3], "a stated row"),
        (np.array([1.0, 2.0, 3.0]), [1, 2, 3], "a stated row"),
        (np.float64(2), [2, 2, 2], "2 in every column"),
    ],
)
def test_what_counts_as_nothing(empty: Any, wanted: list[float], words: str) -> None:
    references = ReferenceSet.from_table(ROWS, columns=NAMES, empty=empty)
    assert references.empty[0].tolist() == wanted
    assert references.empty[0].dtype == torch.float64
    assert references.empty_words == words


def test_values_are_in_the_columns_own_unit_where_they_are_scaled() -> None:
    scaler = StandardScaler()
    scaled = scaler.fit_transform(ROWS)
    kind = table_kind(NAMES, scaler=scaler, units={"age": "years"})
    references = ReferenceSet.from_table(scaled, columns=kind, empty={"age": 0})
    assert kind.columns[0].says(references.empty[0][:1]) == "0 years"
    assert references.empty_words == "0 years in 'age', elsewhere the median of each column"
    with pytest.raises(
        ValueError, match="may be meant in the unit of column 'age', or in the network's, where 0 is 55"
    ):
        ReferenceSet.from_table(scaled, columns=kind, empty=0)


@pytest.mark.parametrize("one_hot", [True, False])
def test_categories_take_the_most_common_one_or_a_stated_one(one_hot: bool) -> None:
    kind = table_kind(["age", "color"], categories={"color": ["red", "green", "blue"]}, one_hot=one_hot)
    code = torch.tensor([2, 1, 2, 0])
    color = torch.nn.functional.one_hot(code, 3).float() if one_hot else code[:, None].float()
    rows = torch.cat([torch.tensor([[1.0], [2.0], [3.0], [9.0]]), color], 1)
    column = kind.columns[1]
    for empty, said in (("median", "blue"), ("mean", "blue"), ("mode", "blue"), ({"color": "green"}, "green")):
        assert column.says(choose_empty(kind, rows, empty)[0][1:]) == said
    assert choose_empty(kind, rows)[1] == "the median of each column, of categories the most common"
    assert choose_empty(kind, rows, {"color": "green", "age": 0})[1] == "0 in 'age', 'green' in 'color'"
    with pytest.raises(ValueError, match=r"empty of column 'color' is 'gren'; .*green"):
        choose_empty(kind, rows, {"color": "gren"})
    with pytest.raises(ValueError, match="empty=0 is no category of column 'color'"):
        choose_empty(kind, rows, 0)


def test_rows_without_any_category_may_be_the_most_common() -> None:
    kind = table_kind(["color"], categories={"color": ["red", "blue"]})
    empty, _ = choose_empty(kind, torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]))
    assert kind.columns[0].says(empty) == "none"


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.integers(-3, 3), min_size=2, max_size=2), min_size=1, max_size=9))
def test_medians_and_modes_are_those_of_numpy(rows: list[list[int]]) -> None:
    kind, values = table_kind(["a", "b"]), torch.tensor(rows, dtype=torch.float64)
    assert choose_empty(kind, values)[0].tolist() == np.median(np.array(rows), 0).tolist()
    modes = [min(set(column), key=lambda v: (-column.count(v), v)) for column in zip(*rows, strict=True)]
    assert choose_empty(kind, values, "mode")[0].tolist() == modes


def test_wrong_empties_are_rejected_by_the_name_of_the_column() -> None:
    for bad in (math.nan, math.inf, "much", None, True):
        with pytest.raises(ValueError, match="empty of column 'size' is "):
            ReferenceSet.from_table(ROWS, columns=NAMES, empty={"size": bad})
    with pytest.raises(ValueError, match=r"empty is \[nan\] in column 'size'"):
        ReferenceSet.from_table(ROWS, columns=NAMES, empty=torch.tensor([0.0, math.nan, 0.0]))
    with pytest.raises(ValueError, match="empty has nan in column 'size'; pass a finite value"):
        ReferenceSet(torch.tensor(ROWS), kind=table_kind(NAMES), empty=torch.tensor([0.0, math.nan, 0.0]))
    with pytest.raises(ValueError, match="empty names 'sise', and there is no such column: size"):
        ReferenceSet.from_table(ROWS, columns=NAMES, empty={"sise": 0})
    with pytest.raises(ValueError, match="empty='max' must be one of median, mode, mean"):
        ReferenceSet.from_table(ROWS, columns=NAMES, empty="max")
    with pytest.raises(ValueError, match=r"empty has shape \(2,\), and a row has 3 entries"):
        ReferenceSet.from_table(ROWS, columns=NAMES, empty=[0, 0])
    with pytest.raises(ValueError, match=r"does not fit a table of shape \(3,\); pass a number, one value per entry"):
        ReferenceSet(torch.tensor(ROWS), kind=table_kind(NAMES), empty=[0.0, 1.0])


def test_rows_that_are_not_scaled_are_warned_of() -> None:
    scaler = StandardScaler()
    scaled = scaler.fit_transform(ROWS * [1, 1000, 1])
    kind = table_kind(NAMES, scaler=scaler)
    with pytest.warns(AbsenceWarning, match="in column 'age', which would be .*: they seem not to be scaled"):
        ReferenceSet.from_table(ROWS, columns=kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ReferenceSet.from_table(scaled, columns=kind)
        ReferenceSet.from_table(ROWS, columns=NAMES)
        for partial in (StandardScaler(with_std=False), StandardScaler(with_mean=False)):
            far = partial.fit_transform(ROWS + 1e4)
            ReferenceSet.from_table(far, columns=table_kind(NAMES, scaler=partial))


def test_wrong_rows_are_rejected() -> None:
    bad = ROWS.copy()
    bad[1, 2] = math.nan
    with pytest.raises(ValueError, match="row 1 has nan in column 'weight'; fill it in, or leave the row out"):
        ReferenceSet.from_table(bad, columns=NAMES)
    with pytest.raises(ValueError, match="the 2 columns take 2 entries"):
        ReferenceSet.from_table(ROWS, columns=NAMES[:2])
    with pytest.raises(ValueError, match="the columns have no names"):
        ReferenceSet.from_table(ROWS)
    with pytest.raises(ValueError, match="complex"):
        ReferenceSet.from_table(torch.zeros(1, 1, dtype=torch.complex64), columns=["a"])
    kind = table_kind(["color"], categories={"color": ["red", "blue"]})
    for entries in ([1.0, 1.0], [0.5, 0.5], [-1.0, 1.0]):
        with pytest.raises(ValueError, match=r"row 1 has .* in column 'color', which is no category"):
            ReferenceSet.from_table([[0.0, 1.0], entries], columns=kind)
    with pytest.raises(TypeError, match="kind must be a TableKind, TextKind"):
        ReferenceSet(torch.zeros(1, 1), kind=TableKind)  # type: ignore[arg-type]
    whole = ReferenceSet.from_table([[1, 2], [3, 4]], columns=["a", "b"])
    assert whole.images[0].dtype == torch.get_default_dtype()


@pytest.mark.needs("pandas")
def test_entries_of_a_category_in_another_order_are_refused() -> None:
    frame = pytest.importorskip("pandas").DataFrame({"age": [1.0, 2.0], "color_red": [1, 0], "color_blue": [0, 1]})
    kind = table_kind(["age", "color"], categories={"color": ["blue", "red"]})
    with pytest.raises(
        ValueError, match="color_red, color_blue in the DataFrame, and color_blue, color_red in the table"
    ):
        ReferenceSet.from_table(frame, columns=kind)


def test_a_small_number_is_not_said_to_be_0() -> None:
    assert Column("dose").says(torch.tensor([3e-7], dtype=torch.float64)) == "3e-07"
    assert Column("age", mean=40.0, std=10.0).says(torch.tensor([-4.0 + 1e-9], dtype=torch.float64)) == "0"

"""Readers of labels: what is present, absent and unknown, on tiny files in the shapes of public data sets."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch

from absence_plugins.core import AbsenceWarning
from absence_plugins.data.labels import (
    ImageLabels,
    read_celeba,
    read_coco,
    read_cub,
    read_image_table,
    read_invert,
    read_invert_parents,
    read_labels,
    read_open_images,
    read_score_table,
)
from absence_plugins.methods.invert import auroc, concepts_from_folder


def rows(labels: ImageLabels) -> list[list[int | None]]:
    found: list[list[int | None]] = labels.to_dict()["concepts"]
    return found


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "names", "concepts"),
    [
        ("image,MEL,NV\nISIC_1,1.0,0.0\nISIC_2,0.0,1.0\n", ("MEL", "NV"), [[1, 0], [0, 1]]),  # ISIC
        ("image_id,Bald,Hat\n1.jpg,-1,1\n2.jpg,1,-1\n", ("Bald", "Hat"), [[0, 1], [1, 0]]),  # CelebA as CSV
        ("Path,Edema,Mass\na.jpg,1.0,-1.0\nb.jpg,,0.0\n", ("Edema", "Mass"), [[1, None], [None, 0]]),  # CheXpert
        ("file;\"dog, wet\";Löwe\nb.png;yes;no\nb.png;yes;no\n", ("dog, wet", "Löwe"), [[1, 0]]),  # a row twice
        ('[{"file": "a", "x": true, "y": null}, {"file": "b", "y": false}]', ("x", "y"), [[1, None], [None, 0]]),
    ],
)  # fmt: skip
def test_tables_of_images(
    tmp_path: Path,
    recwarn: pytest.WarningsRecorder,
    text: str,
    names: tuple[str, ...],
    concepts: list[list[int | None]],
) -> None:
    found = read_image_table(write(tmp_path / "labels.csv", text))
    assert found.names == names
    assert rows(found) == concepts
    assert found.concepts.dtype == (torch.float64 if any(None in row for row in concepts) else torch.bool)
    said = [str(one.message) for one in recwarn]
    assert len(said) == text.count("b.png") // 2 + ("-1" in text)
    if "-1" in text:
        assert (
            f"-1 was read as {'unknown, as other cells are' if '0' in text else 'absent, as no cell is'} 0; if"
            in said[0]
        )


def test_blank_cells_do_not_decide_what_minus_one_means(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "file,dog,leash\na,1,-1\nb,-1,1\nc,,1\n")
    message = (
        "no cell is 0; blank cells are unknown; if it means unknown, pass minus='unknown' .*--labels-minus unknown"
    )
    with pytest.warns(AbsenceWarning, match=message):
        assert rows(read_image_table(path)) == [[1, 0], [0, 1], [None, 1]]
    assert rows(read_labels(path, minus="unknown")) == [[1, None], [None, 1], [None, 1]]
    with pytest.raises(ValueError, match=r"--labels-minus\) is for tables of 1 and -1; .* keeps its scores"):
        read_labels(path, threshold="auto", minus="absent")


def test_columns_probabilities_and_minus_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "Path,Sex,Age,Edema,Mass\na,M,68,1,-1\nb,F,70,0,\n")
    with pytest.warns(
        AbsenceWarning, match="2 columns hold no truths and were left out: Sex .'M' in line 2., Age .'68' in"
    ):
        found = read_image_table(path)
    assert (found.names, rows(found)) == (("Edema", "Mass"), [[1, None], [0, None]])
    assert rows(read_image_table(path, ["Mass"], minus="absent")) == [[0], [None]]
    with pytest.raises(ValueError, match="has no column 'Mas'; there are: Sex, Age, Edema, Mass"):
        read_image_table(path, ["Mas"])
    path = write(tmp_path / "b.csv", "file,cat\na,0.7\nb,0,2\n".replace("0,2", '"0,2"'))
    with pytest.raises(
        ValueError, match=r"b\.csv, line 2: cat of 'a' is 0\.7, a probability or score; pass threshold="
    ):
        read_image_table(path)
    assert rows(read_image_table(path, threshold=0.5)) == [[1], [0]]
    with pytest.raises(ValueError, match="line 3: cat of 'b' is 'maybe'"):
        read_image_table(write(path, "file,cat\na,1\nb,maybe\n"))
    with pytest.raises(ValueError, match="minus='none' must be one of"):
        read_image_table(path, minus="none")


def test_a_concept_column_holds_only_truths(tmp_path: Path) -> None:
    """A column of ages with a 0 in it is no concept; one wrong cell is named."""
    path = write(tmp_path / "a.csv", "Path,Sex,Age,Edema,Mass\na,M,68,1,-1\nb,F,0,0,maybe\n")
    message = r"2 columns hold other cells .* left out: Age \('68' in line 2\), Mass \('maybe' in line 3\); correct"
    with (
        pytest.warns(AbsenceWarning, match="1 column holds no truths and was left out: Sex .'M' in line 2."),
        pytest.warns(AbsenceWarning, match=message),
    ):
        found = read_image_table(path)
    assert (found.names, rows(found)) == (("Edema",), [[1], [0]])
    with pytest.raises(ValueError, match="line 2: Age of 'a' is '68'; write 0 or 1"):
        read_image_table(path, ["Age"])
    with pytest.raises(ValueError, match="line 3: Mass of 'b' is 'maybe'"):
        read_image_table(write(tmp_path / "b.csv", "Path,Note,Mass\na,,1\nb,,maybe\n"))
    with pytest.raises(ValueError, match="the column 'Edema' is named twice"):
        read_image_table(path, ["Edema", "Edema"])


@pytest.mark.parametrize("columns", [None, ["Edema"], ["Mass"]])
def test_minus_one_means_the_same_whichever_columns_are_asked_for(tmp_path: Path, columns: list[str] | None) -> None:
    path = write(tmp_path / "a.csv", "Path,Edema,Mass\na.jpg,1,0\nb.jpg,-1,\nc.jpg,1,-1\n")
    with pytest.warns(AbsenceWarning, match="-1 was read as unknown"):
        found = read_image_table(path, columns)
    expected = {"Edema": [1, None, 1], "Mass": [0, None, None]}
    assert {name: [row[k] for row in rows(found)] for k, name in enumerate(found.names)} == {
        name: expected[name] for name in columns or expected
    }


def test_scores_are_finite_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'file,dog,cat,note\na,0.31,-1e-05,1_0\nb,?,"0,5",2\n')
    with pytest.warns(AbsenceWarning, match="1 column holds other cells than numbers and was left out: note"):
        found = read_score_table(path)
    assert found.to_dict() == {"images": ["a", "b"], "names": ["dog", "cat"], "concepts": [[0.31, -1e-05], [None, 0.5]]}
    with pytest.raises(ValueError, match="the column 'dog' is named twice"):
        read_score_table(path, ["dog", "dog"])
    for cell in ("inf", "-Infinity", "1e999"):
        with pytest.raises(ValueError, match=f"line 3: dog of 'b' is {cell}; leave the cell blank if unknown"):
            read_score_table(write(path, f"file,dog\na,1.5\nb,{cell}\n"))


def test_numbers_as_programs_write_them(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv", "file,dog,cat\na,0.99,1e-05\nb,2.0E-02,9.8e-1\nc,0.000e+00,1.000e+00\nd,-1.00,1.\n"
    )
    with pytest.warns(AbsenceWarning, match="-1 was read as unknown"):
        assert rows(read_image_table(path, threshold=0.5)) == [[1, 0], [0, 1], [0, 1], [None, 1]]
    with pytest.raises(ValueError, match=r"line 2: cat of 'a' is 1e-05, a probability or score; pass threshold="):
        read_image_table(path, ["cat"])
    with pytest.raises(ValueError, match=r"line 3: dog of 'b' is 3, no probability from 0 to 1"):
        read_image_table(write(path, "file,dog\na,1\nb,3\n"), ["dog"], threshold=0.5)
    for threshold in (1, -0.1, math.nan):
        with pytest.raises(ValueError, match="must be at least 0 and below 1"):
            read_image_table(path, threshold=threshold)


def test_one_threshold_serves_cosines_and_logits(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "file,dog,cat,age\na,-0.433,2.5,60\nb,0.31,-1,70\nc,,-3.25,80\n")
    for columns, cell in ((None, "-0.433"), (["cat"], "2.5")):
        message = rf"is {re.escape(cell)}, a probability or score; pass threshold=.*--labels-threshold 0\.5, or .auto"
        with pytest.raises(ValueError, match=message):
            read_image_table(path, columns)
    for threshold, expected in ((0.0, [[0, 1], [1, 0], [None, 0]]), (-2, [[1, 1], [1, 1], [None, 0]])):
        with (
            pytest.warns(
                AbsenceWarning, match=f"2 columns hold scores beyond 0 to 1, present above {threshold:g}: dog, cat"
            ),
            pytest.warns(AbsenceWarning, match="1 column holds no truths and was left out: age"),
        ):
            assert rows(read_image_table(path, threshold=threshold)) == expected
    with pytest.raises(ValueError, match=r"threshold=nan must be at least 0 and below 1, such as 0\.5$"):
        read_image_table(path, threshold=math.nan)
    write(path, "file,dog,cat\na,1,2.5\nb,0,-1\n")
    with pytest.warns(
        AbsenceWarning, match=r"cat \('2\.5' in line 2\).*hold scores, pass threshold= .*--labels-threshold"
    ):
        assert read_image_table(path).names == ("dog",)


@pytest.mark.parametrize(
    ("text", "images", "note"),
    [
        ("dog,leash,file\n1,0,a\n1,1,b\n", ("a", "b"), "file names are those of the column 'file', not of the first, 'dog'"),
        (",file,dog\n5,a,1\n9,b,0\n", ("a", "b"), "those of the column 'file', not of the first, which has no name"),
        ("id,dog\n5,1\n9,0\n", ("5", "9"), ""),
        ("circle,file,dog\nx,a,1\ny,b,0\n", ("x", "y"), "first column, 'circle', is taken for .* a column 'file', too"),
    ],
)  # fmt: skip
def test_the_column_of_the_files_is_found(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, text: str, images: tuple[str, ...], note: str
) -> None:
    found = read_image_table(write(tmp_path / "a.csv", text))
    assert found.images == images
    assert "dog" in found.names
    assert re.search(note, " ".join(str(one.message) for one in recwarn))
    assert len(recwarn) == 0 or note
    recwarn.clear()
    assert read_score_table(tmp_path / "a.csv").images == images
    assert re.search(note, " ".join(str(one.message) for one in recwarn))


def test_a_table_without_files_is_refused(tmp_path: Path) -> None:
    for text, message in (
        (
            "dog,leash\n1,0\n0,1\n0,0\n",
            "first column, 'dog', holds values such as '1' and no file names; put these first",
        ),
        ("dog,leash\n0.2,0.5\n0.4,0.1\n", "first column, 'dog', holds values such as '0.2' and no"),
        ("dog,file,photo\n1,a,b\n0,c,d\n", "no file names; which of 'file', 'photo' has them"),
    ):
        with pytest.raises(ValueError, match=message):
            read_image_table(write(tmp_path / "a.csv", text))


def test_labels_find_their_files(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("cat/1.png", "cat/2.png", "dog/3.png")]
    labels = ImageLabels(("3", "cat/1.jpg", "CAT/2.PNG", "9"), ("x",), torch.tensor([[True], [False], [True], [True]]))
    with pytest.warns(
        AbsenceWarning, match="1 of 3 files have no labels, which are unknown: cat/1.png; 2 labels are of no"
    ):
        found = labels.match(files, tmp_path)
    assert rows(found) == [[None], [1], [1]]
    assert found.images == ("cat/1.png", "cat/2.png", "dog/3.png")
    with pytest.raises(ValueError, match=r"dog/3\.png has labels twice, as '3' and '3\.png'"):
        ImageLabels(("3", "3.png"), ("x",), torch.ones(2, 1)).match(files, tmp_path)
    with pytest.raises(ValueError, match=r"labels of '1\.png' may be those of cat/1\.png or dog/1\.png"):
        ImageLabels(("1.png",), ("x",), torch.ones(1, 1)).match([*files, tmp_path / "dog/1.png"], tmp_path)
    with pytest.raises(ValueError, match=r"no file of .* such as cat/1\.png, has labels; they are of x, \.\.\."):
        ImageLabels(("x",), ("x",), torch.ones(1, 1)).match(files, tmp_path)


def test_celeba(tmp_path: Path) -> None:
    path = write(tmp_path / "list_attr_celeba.txt", "2\nBald Hat \n000001.jpg -1  1\n000002.jpg  1 -1\n")
    assert rows(read_celeba(path)) == [[0, 1], [1, 0]]
    for text, message in (
        ("3\nBald\n1.jpg 1\n", "has labels of 1 images and says 3"),
        ("1\nBald Hat\n1.jpg 1\n", "line 3: 1 values for 2 attributes"),
        ("1\nBald\n1.jpg 0\n", "line 3: '0' is neither 1 nor -1"),
        ("Bald\n1.jpg 0\n\n", "does not begin with the number of images"),
        ("²\nBald\n1.jpg 1\n", "does not begin with the number of images"),
        ("1\nBald Bald\n1.jpg 1 -1\n", "line 2: the attribute 'Bald' comes twice"),
    ):
        with pytest.raises(ValueError, match=message):
            read_celeba(write(path, text))


def test_cub(tmp_path: Path) -> None:
    write(tmp_path / "images.txt", "1 001.Crow/a.jpg\n2 002.Gull/b.jpg\n")
    write(tmp_path / "attributes" / "attributes.txt", "1 has_bill_shape::hooked\n2 has_wing_color::black\n")
    path = tmp_path / "attributes" / "image_attribute_labels.txt"
    write(path, "1 1 1 4 2.5\n1 2 0 1 0\n2 1 0 2 1.0 0 3\n2 2 1 3 0.5\n")  # the third line is as odd as some of CUB's
    found = read_cub(tmp_path)
    assert found.images == ("001.Crow/a.jpg", "002.Gull/b.jpg")
    assert found.names == ("has_bill_shape::hooked", "has_wing_color::black")
    assert rows(found) == [[1, None], [0, 1]]
    assert rows(read_cub(tmp_path, least_certainty=3)) == [[1, None], [None, 1]]
    write(path, "1 1 1 4\n1 7 1 4\n")
    with pytest.raises(ValueError, match="line 2: '1 7 1 4' must read image, attribute, 0 or 1, certainty"):
        read_cub(tmp_path)
    for text, message in (
        ("1 1 1 x 2", r"line 1: '1 1 1 x 2' must read image, attribute, 0 or 1, certainty \(1 to 4\)"),
        ("1 1 1 4\n1 1 0 4", "line 2: attribute 1 of image 1 has another answer than before"),
    ):
        with pytest.raises(ValueError, match=message):
            read_cub(write(path, text).parents[1])
    assert rows(read_cub(write(path, "1 1 1 4\n1 1 1 4").parents[1])) == [[1, None], [None, None]]
    write(tmp_path / "images.txt", "1 001.Crow/a.jpg\n1 002.Gull/b.jpg\n")
    with pytest.raises(ValueError, match=r"images\.txt, line 2: the number 1 comes a second time"):
        read_cub(tmp_path)


def test_coco_and_lvis(tmp_path: Path) -> None:
    coco = {
        "images": [{"id": 5, "file_name": "a.jpg"}, {"id": 7, "file_name": "b.jpg"}],
        "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
        "annotations": [{"image_id": 7, "category_id": 18}, {"image_id": 7, "category_id": 18, "iscrowd": 1}],
    }
    path = write(tmp_path / "instances.json", json.dumps(coco))
    found = read_coco(path)
    assert (found.images, found.names, rows(found)) == (("a.jpg", "b.jpg"), ("person", "dog"), [[0, 0], [0, 1]])
    lvis = coco | {
        "images": [{"id": 5, "coco_url": "http://x/a.jpg", "neg_category_ids": [1]}, {"id": 7, "neg_category_ids": []}]
    }
    found = read_coco(write(path, json.dumps(lvis)))
    assert (found.images, rows(found)) == (("a.jpg", "7"), [[0, None], [None, 1]])  # what nobody looked for is unknown
    with pytest.raises(ValueError, match="an annotation is of image 9 and category 1, which it does not list"):
        read_coco(write(path, json.dumps(coco | {"annotations": [{"image_id": 9, "category_id": 1}]})))
    with pytest.raises(ValueError, match="lacks images, annotations or categories"):
        read_coco(write(path, '{"images": []}'))
    with pytest.raises(ValueError, match=r"instances\.json, line 1: no JSON"):
        read_coco(write(path, '{"images": ['))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": [{"id": 5}, {"id": 5, "file_name": "b.jpg"}]}, "image 2 of 2 has the id 5, as one before it"),
        ({"images": [{"id": 5, "file_name": "b.jpg"}, {"id": 6, "file_name": "b.jpg"}]}, r"the image 'b\.jpg' twice"),
        ({"images": [{"file_name": "a.jpg"}]}, "image 1 of 1 has no id"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "category 2 of 2 has the id 1, as one"),
        ({"images": [{"id": 5, "neg_category_ids": [9]}]}, "of image 5 have 9, a category that it does not list"),
        ({"images": [{"id": 5, "neg_category_ids": [1]}]}, "category 1 of image 5 is annotated and among its neg_cat"),
        ({"annotations": [{"image_id": [5], "category_id": 1}]}, r"an annotation is of image \[5\] and category 1"),
        ({"annotations": [7]}, "an annotation is of image 7"),
    ],
)  # fmt: skip
def test_annotations_that_contradict_each_other(tmp_path: Path, change: dict[str, object], message: str) -> None:
    data = {
        "images": [{"id": 5, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [{"image_id": 5, "category_id": 1}],
    }
    assert rows(read_coco(write(tmp_path / "instances.json", json.dumps(data)))) == [[1]]
    with pytest.raises(ValueError, match=message):
        read_coco(write(tmp_path / "instances.json", json.dumps(data | change)))


def test_open_images(tmp_path: Path) -> None:
    text = (
        "ImageID,Source,LabelName,Confidence\na,verification,/m/1,1\na,crowd,/m/2,0\nb,crowd,/m/2,1\nb,crowd,/m/2,1\n"
    )
    path = write(tmp_path / "human-imagelabels.csv", text)
    names = write(tmp_path / "class-descriptions.csv", '/m/1,Crane\n/m/2,Crane\n/m/3,"Dog, wet"\n')
    found = read_open_images(path, names)
    assert (found.images, found.names) == (("a", "b"), ("Crane (/m/1)", "Crane (/m/2)"))
    assert rows(found) == [[1, 0], [None, 1]]
    with pytest.raises(ValueError, match="line 5: /m/2 of image b is confirmed and denied"):
        read_open_images(write(path, text.replace("2,1\nb,crowd,/m/2,1", "2,1\nb,crowd,/m/2,0")))
    with pytest.raises(ValueError, match=r"line 2: the confidence is '0\.7', of a machine"):
        read_open_images(write(path, text.replace("/m/1,1", "/m/1,0.7")))
    with pytest.raises(ValueError, match="lacks the columns ImageID"):
        read_open_images(names)
    with pytest.raises(ValueError, match="line 3: the cell of the image or the label is empty"):
        read_open_images(write(path, text.replace("a,crowd", ",crowd")))
    write(path, text)
    boxable = write(tmp_path / "boxable-class-descriptions.csv", "/m/1,Crane\n")
    assert read_labels(path).names == ("Crane (/m/1)", "Crane (/m/2)")  # of both tables
    with pytest.raises(ValueError, match="line 1: /m/1 is called 'Bird' and 'Crane'"):
        read_open_images(path, [write(boxable, "/m/1,Bird\n"), names])


def test_the_labels_of_invert(tmp_path: Path) -> None:
    torch.save(torch.tensor([[1, 0], [0, 1], [1, 1]]), tmp_path / "labels.pt")
    entries = {"0": {"offset": "n02084071", "name": "dog"}, "1": {"offset": "n02121620"}}
    path = write(tmp_path / "concepts.json", json.dumps(entries))
    found = read_invert(tmp_path / "labels.pt", path)
    assert (found.images, found.names, rows(found)) == (("0", "1", "2"), ("dog", "n02121620"), [[1, 0], [0, 1], [1, 1]])
    with pytest.raises(ValueError, match=r"concepts\.json has 1 entries for the 2 columns"):
        read_invert(tmp_path / "labels.pt", write(path, '{"0": {}}'))
    (tmp_path / "labels.pt").write_bytes(b"no tensor")
    with pytest.raises(ValueError, match=r"is no tensor that torch\.save wrote"):
        read_invert(tmp_path / "labels.pt", path)


def test_keys_of_invert_are_the_numbers_of_the_columns(tmp_path: Path) -> None:
    """Written with ``sort_keys`` the tenth entry stands behind the first."""
    torch.save(torch.eye(11).int(), tmp_path / "labels.pt")
    path = tmp_path / "concepts.json"
    for first in (0, 1):
        entries = {str(k + first): {"offset": f"n{k}", "name": f"name{k}"} for k in range(11)}
        found = read_invert(tmp_path / "labels.pt", write(path, json.dumps(entries, sort_keys=True)))
        assert found.names == tuple(f"name{k}" for k in range(11))
    entries = {f"c{k}": {"offset": f"n{k}"} for k in (*range(5, 11), *range(5))}
    found = read_invert(tmp_path / "labels.pt", write(path, json.dumps(entries)))
    assert found.names == tuple(f"n{k}" for k in (*range(5, 11), *range(5)))  # no numbers: as they stand
    for text, message in (
        (json.dumps({str(2 * k): {} for k in range(11)}), "keys are numbers, 0 to 20, and not those of 11 columns"),
        ('{"0": {}, "0": {}}', "the key '0' comes twice in one object"),
        (json.dumps({str(k): {"offset": "n1"} for k in range(11)}), r"two concepts are called 'n1 \(n1\)'"),
    ):
        with pytest.raises(ValueError, match=message):
            read_invert(tmp_path / "labels.pt", write(path, text))
    for text, message in (
        ('{"0": {"offset": "n1", "parents": 5}}', "the hypernyms of '0' are 5; write a name or a list"),
        ('{"0": {"parents": ["a"]}, "0": {"parents": ["b"]}}', "the key '0' comes twice"),
        ('{"0": {"offset": "n1", "parent": "a"}, "1": {"offset": "n1"}}', "two concepts are called"),
    ):
        with pytest.raises(ValueError, match=message):
            read_invert_parents(write(path, text))
    with pytest.raises(ValueError, match="the image 'a' twice"):
        read_invert(tmp_path / "labels.pt", write(path, json.dumps({str(k): f"n{k}" for k in range(11)})), ["a"] * 11)


def test_unknown_attributes_of_classes_are_unknown_concepts(tmp_path: Path) -> None:
    for name in ("cat", "dog", "fox"):
        write(tmp_path / "images" / name / "1.png", "")
    table = write(tmp_path / "a.csv", "class,tame\ncat,1\ndog,?\nfox,0\n")
    found = concepts_from_folder(tmp_path / "images", table)
    assert found.concepts[:, 0].tolist() == [1.0, 0.0, 0.0]
    assert [None if math.isnan(value) else value for value in found.concepts[:, 3].tolist()] == [1.0, None, 0.0]
    assert found.varying().names == ("cat", "dog", "fox", "tame")
    assert auroc([3.0, 9.0, 1.0], found.concepts[:, 3:]).item() == 1.0  # the dog counts neither way

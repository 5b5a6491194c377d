"""What ``explain`` checks in front of the work, whom it compares with, and what is kept when something fails."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.utils import save_image
from typer.testing import CliRunner

from absence_plugins.cli import app
from absence_plugins.commands import explain
from absence_plugins.commands.class_names import find_class
from absence_plugins.commands.models import LoadedModel, Preprocessing
from absence_plugins.commands.pasting import insert_missing, remove_suppressor
from absence_plugins.commands.references import describe_references, load_references
from absence_plugins.data.same_photograph import show_same
from absence_plugins.methods.regions import RegionTest, place_elsewhere

NETS = """
import torch
from torch import nn

def by_color():
    last = nn.Linear(3, 3)
    last.weight.data = 5 * torch.eye(3)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
"""
COLORS = ("red", "green", "blue")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[str]:
    """A picture of every color in a class folder of its number; the options of a network that knows them."""
    monkeypatch.chdir(tmp_path)
    for k, color in enumerate(COLORS):
        (tmp_path / "photos" / str(k)).mkdir(parents=True)
        Image.new("RGB", (32, 32), color).save(tmp_path / "photos" / str(k) / f"{color}.png")
    module = f"nets_{abs(hash(request.node.nodeid))}"  # a module is imported once per process
    (tmp_path / f"{module}.py").write_text(NETS)
    return ["--model", f"{module}:by_color", "--size", "32", "--out", "page"]


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["explain", *arguments])
    return result.exit_code, " ".join(result.output.split())


def page() -> str:
    return Path("page/index.html").read_text(encoding="utf-8")


# -- before the work -------------------------------------------------------------------------------------------------


EARLY = [
    (["none.png", "nor this.png"], "images none.png, nor this.png do not exist"),
    (["a.png", "--references", "nowhere"], "references folder nowhere does not exist"),
    (["a.png", "--contrast", "coffee"], "--contrast 'coffee' needs --references FOLDER"),
    (["a.png", "--weights", "no/weights.pth"], "weights file no/weights.pth does not exist"),
    (["a.png", "--model", "trochvision:resnet18"], "did you mean torchvision:resnet18?"),
    (["a.png", "--size", "0"], "--size 0 must be at least 1"),
    (["a.png", "--k", "0"], "--k 0 must be at least 1"),
    (["a.png", "--steps", "-1"], "--steps -1 must be at least 1"),
    (["a.png", "--channels", "0"], "--channels 0 must be at least 1"),
    (["a.png", "--std", "1,b"], "--std '1,b' must be comma-separated numbers"),
]


def test_words_are_checked_before_torch_is_imported(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    program = (
        "import sys\nfrom typer.testing import CliRunner\nfrom absence_plugins.cli import app\n"
        f"for words in {[words for words, _ in EARLY]!r}:\n"
        "    out = CliRunner().invoke(app, ['explain', *words])\n"
        "    print('torch' in sys.modules, out.exit_code, ' '.join(out.output.split()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    for line, (_, message) in zip(done.stdout.splitlines(), EARLY, strict=True):
        assert line.startswith("False 2 error: ")
        assert message in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "Oclusion"], "there are: Occlusion, "),
        (["--method", "relevance", "--steps", "9"], "--steps is for IntegratedGradients"),
        (["--method", "DeepLift", "--steps", "9"], "DeepLift has none"),
        (["--target", "3"], "--target 3 does not exist: the model has 3 outputs"),
        (["--target", "-4"], "--target -4 does not exist"),
        (["--target", "fox"], "the model's classes have no names here; pass the number"),
        (["--nontarget", "fox"], "--nontarget 'fox' must be a class index, runner_up, others, margin, or negated"),
        (["--references", "photos", "--contrast", "fox"], "the folders of photos are: 0, 1, 2"),
        (["--references", "photos", "--contrast", "7", "--k", "1"], "0 reference samples of class 7"),
        (["--references", "photos", "--contrast", "0", "--target", "0", "--k", "1"], "compared with itself"),
        (["--references", "photos", "--k", "1", "--method", "GradCam"], "has no baseline to compare with"),
    ],
)
def test_classes_and_methods_are_checked_before_the_first_map(
    photos: list[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setattr(explain, "explain_row", lambda *_: pytest.fail("a map was made"))
    code, said = run("photos/0/red.png", "photos/1/green.png", *photos, "--quiet", *arguments)
    assert code == 2
    assert message in said
    assert not Path("page").exists()


def test_names_of_classes() -> None:
    names = ["tench", "tabby, tabby cat", "crane", "Crane", "tiger cat"]
    assert [find_class("--target", text, names) for text in ("TENCH", "tabby cat", "tiger_cat", " 3 ")] == [0, 1, 4, 3]
    with pytest.raises(ValueError, match="is the name of classes 2, 3; pass the number"):
        find_class("--target", "crane", names)
    with pytest.raises(ValueError, match=r"nearest names are: tiger cat \(4\)"):
        find_class("--target", "tigercat", names)


# -- one image fails -------------------------------------------------------------------------------------------------


def test_an_image_that_fails_is_named_and_the_others_get_their_maps(photos: list[str]) -> None:
    Path("torn.png").write_bytes(Path("photos/0/red.png").read_bytes()[:40])
    images = [f"photos/{k}/{color}.png" for k, color in enumerate(COLORS)]
    options = [*photos, "--contrast", "1", "--references", "photos", "--k", "1"]
    code, said = run(images[0], "torn.png", *images[1:], *options)
    assert code == 0
    assert "skipped green.png: class 1 would be compared with itself" in said
    assert "skipped torn.png: not an image" in said
    assert "2 of 4 images explained" in said
    assert "Not explained: torn.png: not an image" in page()
    assert page().count("Reference map: class") == 2 * 2  # title and alternative text
    code, said = run("torn.png", images[1], *options, "--quiet")
    assert code == 2
    assert "none of the 2 images can be explained: torn.png is not" in said
    assert "2 of 4 images" in page(), "the former page is whole"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_what_was_done_is_written_whatever_ends_the_command(
    photos: list[str], monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    real, calls = explain.explain_row, []

    def third_fails(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise stop
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(explain, "explain_row", third_fails)
    code, said = run(*[f"photos/{k}/{color}.png" for k, color in enumerate(COLORS)], *photos, "--quiet")
    assert code == (130 if stop is KeyboardInterrupt else 2)
    assert "2 of 3 images are done and on the page" in said
    assert "To begin again:" in said
    assert "2 of 3 images, explained with" in page()
    assert "stopped in front of the other" in page()


# -- what is said ----------------------------------------------------------------------------------------------------


def test_the_terminal_says_what_is_compared_and_quiet_says_nothing_but_the_path(photos: list[str]) -> None:
    options = [*photos, "--references", "photos", "--k", "1"]
    code, said = run("photos/0/red.png", *options)
    assert code == 0
    assert (
        "References: 3 images of photos; folders, read as numbers of outputs, from 0: 0 is class 0, 1 is class 1, 2 is class 2"
        in said
    )
    assert (
        "the model predicts the folder's class for 3 of 3; compared with every class but the explained one, the nearest in pixels."
        in said
    )
    assert re.search(r"explaining with \S+: about (a second|\d+ seconds)", said)
    assert "red.png: class 0 is explained" in said
    assert "References: 3 images of photos" in page()
    quiet = CliRunner().invoke(app, ["explain", "photos/0/red.png", *options, "--quiet"])
    assert quiet.stdout.strip() == str(Path("page/index.html").resolve())
    assert all(word not in quiet.output for word in ("References", "explaining", "explained", "is explained"))


def test_the_command_on_the_page_can_be_pasted_back(photos: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("my photos").mkdir()
    Path("photos/0/red.png").rename("my photos/a b.png")
    words = ["explain", "my photos/a b.png", *photos, "--quiet"]
    monkeypatch.setattr(sys, "argv", ["absence-plugins", *words])
    assert run(*words[1:])[0] == 0
    assert "absence-plugins explain &#39;my photos/a b.png&#39; --model" in page()


# -- references ------------------------------------------------------------------------------------------------------


class ByBrightness(nn.Module):
    """Class 0 for dark images, class 1 for bright ones."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        return torch.stack([0.5 - mean, mean - 0.5], 1)


def loaded(size: int, names: tuple[str, ...] = ()) -> LoadedModel:
    return LoadedModel(ByBrightness(), Preprocessing(size, 3, (0.0,) * 3, (1.0,) * 3), names)


def write(folder: Path, name: str, picture: Tensor) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    save_image(picture, folder / name)


def test_references_of_the_class_that_the_model_sees_are_left_out(tmp_path: Path) -> None:
    """The folder says class 1; for two of its three images the model says class 0, as for the explained one."""
    for number, value in enumerate((0.1, 0.2, 0.9)):
        write(tmp_path, f"1/{number}.png", torch.full((3, 8, 8), value))
    references = load_references(tmp_path, loaded(8), k=2)
    chosen = references.choose_for(torch.full((1, 3, 8, 8), 0.15), 0)
    assert chosen.references.images[0].mean() > 0.8
    assert chosen.nearest == "2.png"
    assert chosen.notes == (
        "2 references were left out, as the model itself gives them the explained class: 1/0.png, 1/1.png.",
        "Only 1 reference is left, fewer than --k 2.",
    )
    (tmp_path / "1" / "2.png").unlink()
    references = load_references(tmp_path, loaded(8), k=2)
    with pytest.raises(ValueError, match=r"no reference .* is left to compare with \(2: the model itself"):
        references.choose_for(torch.full((1, 3, 8, 8), 0.15), 0)


def test_folders_that_are_no_classes_count_as_what_the_model_sees(tmp_path: Path) -> None:
    for name, value in (("misc/a.png", 0.1), ("misc/b.png", 0.9), ("Bright/c.png", 0.8), ("bright/d.png", 0.7)):
        write(tmp_path, name, torch.full((3, 8, 8), value))
    references = load_references(tmp_path, loaded(8, ("dark", "bright")), k=1)
    assert references.classes == {"misc": None, "Bright": 1, "bright": 1}
    assert sorted(references.labels.tolist()) == [0, 1, 1, 1]
    chosen = references.choose_for(torch.full((1, 3, 8, 8), 0.1), 0)
    assert chosen.nearest == "d.png"
    assert chosen.notes == ("1 reference was left out, as the model itself gives it the explained class: misc/a.png.",)
    said = describe_references(references, loaded(8, ("dark", "bright")))
    assert "folders: Bright is class 1 (bright), bright is class 1 (bright)" in said
    assert "no class of the model, so that their images count as what it predicts: misc" in said


@pytest.mark.parametrize(
    ("contrast", "expected"), [("1", ["c.png"]), ("BRIGHT", ["c.png"]), ("odd", ["o.png"]), (None, ["o.png"])]
)
def test_the_contrast_is_a_class_a_name_or_a_folder(tmp_path: Path, contrast: str | None, expected: list[str]) -> None:
    for name, value in (("dark/a.png", 0.1), ("bright/c.png", 0.9), ("odd/o.png", 0.6)):
        write(tmp_path, name, torch.full((3, 8, 8), value))
    references = load_references(tmp_path, loaded(8, ("dark", "bright")), k=1, contrast=contrast)
    if contrast in ("1", "BRIGHT"):
        (tmp_path / "odd/o.png").unlink()
        references = load_references(tmp_path, loaded(8, ("dark", "bright")), k=1, contrast=contrast)
    assert [references.choose_for(torch.full((1, 3, 8, 8), 0.1), 0).nearest] == expected


def scene(seed: int) -> Tensor:
    """A smooth picture with structure [3, 160, 160]."""
    noise = torch.rand(1, 3, 10, 10, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(noise, (160, 160), mode="bicubic").clamp(0, 1)[0]


def test_crops_of_the_same_photograph_are_known() -> None:
    whole = scene(0)
    crops = [whole[:, a : a + side, b : b + side] for a, b, side in ((0, 20, 130), (30, 30, 110), (10, 0, 140))]
    others = [scene(seed) for seed in range(1, 9)]
    pictures = [
        nn.functional.interpolate(part[None], (96, 96), mode="bilinear")[0] for part in (whole, *crops, *others)
    ]
    assert show_same(pictures[0], torch.stack(pictures)).tolist() == [True] * 4 + [False] * 8
    scaled = [(picture - 0.5) / 0.2 for picture in pictures]
    assert show_same(scaled[0], torch.stack(scaled)).tolist() == [True] * 4 + [False] * 8
    assert not show_same(pictures[0], torch.zeros(2, 3, 96, 96)).any()


def test_the_same_photograph_is_no_reference(tmp_path: Path) -> None:
    dark, bright = scene(0) * 0.3, 0.6 + 0.4 * scene(1)
    crop = nn.functional.interpolate((scene(0)[:, 10:140, 10:140] * 0.4 + 0.6)[None], (96, 96), mode="bilinear")[0]
    write(tmp_path, "1/crop.png", crop)
    write(tmp_path, "1/other.png", bright)
    x = nn.functional.interpolate(dark[None], (96, 96), mode="bilinear")
    chosen = load_references(tmp_path, loaded(96), k=1).choose_for(x, 0)
    assert chosen.nearest == "other.png"
    assert chosen.notes == ("1 reference was left out, as it shows the same photograph: 1/crop.png.",)


# -- the network is asked --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "random", "sd", "rises", "expected"),
    [
        (2.1, 0.0, 1.0, True, "The network bears the map out."),
        (1.9, 0.0, 1.0, True, "no more than chance"),
        (2.1, 1.0, 1.0, True, "no more than chance"),
        (-1.07, -1.97, 0.2, True, "the output fell, and the map says that it rises (at random places it fell further)"),
        (-3.0, 0.0, 1.0, True, "against random places it is no more than chance"),
        (0.0, 0.0, 0.0, True, "the output did not move"),
        (-2.1, 0.0, 1.0, False, "The network bears the map out."),
        (1.0, 5.0, 1.0, False, "the output rose, and the map says that it falls"),
    ],
)
def test_the_verdict_needs_the_claimed_way_and_more_than_the_control(
    after: float, random: float, sd: float, rises: bool, expected: str
) -> None:
    elsewhere = torch.tensor([random - sd, random, random + sd])  # with the standard deviation sd
    where = torch.ones(2, 2, dtype=torch.bool)
    test = RegionTest(where, torch.zeros(1, 2, 2), rises, 0.0, after, elsewhere)
    assert expected in test.verdict()
    assert test.is_borne == test.verdict().startswith("The network bears")


def test_a_map_that_names_nothing_is_not_borne_out() -> None:
    test = remove_suppressor(lambda x: x.flatten(1).sum(1), torch.ones(1, 6, 6), torch.zeros(1, 6, 6), 0.0)
    assert test.verdict() == "The map names no place, so there is nothing to test."
    assert not test.is_borne


def test_the_control_keeps_the_shape_of_scattered_pixels() -> None:
    x, reference, absence = torch.zeros(1, 96, 96), torch.ones(1, 96, 96), torch.zeros(1, 96, 96)
    absence[0, 3, 5] = 1.0
    absence[0, 20, 20] = 2.0
    seen = []

    def output(images: Tensor) -> Tensor:
        seen.append(images.clone())
        return images.flatten(1).sum(1)

    test = insert_missing(output, x, reference, absence)
    assert (test.pixels, test.change, test.random_change) == (2, 2.0, 2.0)
    changed = test.image[0].bool()
    assert changed.nonzero().tolist() == [[3, 5], [20, 20]]
    for variant in torch.cat(seen[1:])[:, 0].bool():
        shifts = [
            (row, column)
            for row, column in variant.nonzero().tolist()[:1]
            if any(
                torch.equal(changed.roll((row - a, column - b), (0, 1)), variant) for a, b in changed.nonzero().tolist()
            )
        ]
        assert shifts, "the control has the shape of the region"
        assert not (variant & changed).any(), "and lies beside it"


def test_places_elsewhere_share_as_little_as_can_be() -> None:
    where = torch.zeros(4, 4, dtype=torch.bool)
    where[:3] = True
    assert {down for down, _ in place_elsewhere(where, 20, 0)} == {1, 2, 3}
    assert place_elsewhere(where, 5, 1) == place_elsewhere(where, 5, 1)

"""``explain --reference-kind``: nearest in features or pixels, made from the image itself, never of its own class."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.utils import save_image
from typer.testing import CliRunner

from absence_plugins import MadeReferences, ReferenceSet
from absence_plugins.cli import app
from absence_plugins.commands.maps.explainers import explainer
from absence_plugins.commands.models import LoadedModel, Preprocessing
from absence_plugins.commands.references import describe_references, load_references, make_references
from absence_plugins.core.hooks import counting
from absence_plugins.core.made_references import make_reference

NETS = """
import torch
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
"""


def by_color() -> nn.Sequential:
    """Class 0, 1, 2: how red, green, blue the mean color is."""
    last = nn.Linear(3, 3)
    last.weight.data, last.bias.data = 5 * torch.eye(3), torch.zeros(3)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), last).eval()


def loaded(size: int) -> LoadedModel:
    return LoadedModel(by_color(), Preprocessing(size, 3, (0.0,) * 3, (1.0,) * 3), ())


def color(red: float, green: float, blue: float, side: int = 8) -> Tensor:
    return torch.tensor([float(red), green, blue])[:, None, None].expand(3, side, side)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures that the model calls 0, 1, 1 and 2."""
    for number, one in enumerate([(1, 0, 0), (0.2, 0.6, 0), (0, 1, 0), (0, 0, 1)]):
        save_image(color(*one), tmp_path / f"{number}.png")
    return tmp_path


def test_references_of_the_class_predicted_for_the_image_are_left_out(folder: Path) -> None:
    x = color(0.3, 1.0, 0.0)[None]  # class 1
    references = load_references(folder, loaded(8), k=2)
    chosen = references.choose_for(x, 0, predicted=1)  # class 0 is asked about
    assert chosen.nearest == "3.png"
    assert chosen.notes[:2] == (
        "1 reference was left out, as the model itself gives it the explained class: 0.png.",
        "2 references were left out, as the model itself gives them the class that it predicts for the image: "
        "1.png, 2.png.",
    )
    assert {references.choose_for(x, 1, predicted=1).nearest, references.choose_for(x, 1).nearest} == {"0.png"}
    named = load_references(folder, loaded(8), k=2, contrast=1)  # asked for by name
    assert named.choose_for(x, 0, predicted=1).nearest == "2.png"
    (folder / "3.png").unlink()  # no others are left
    assert load_references(folder, loaded(8), k=2).choose_for(x, 0, predicted=1).nearest == "2.png"


def test_photographs_are_nearest_in_features_smaller_images_in_pixels(folder: Path) -> None:
    in_features, in_pixels = "the nearest in the model's features.", "the nearest in pixels."
    cases = ((96, "auto", in_features), (96, "pixels", in_pixels), (8, "auto", in_pixels), (8, "features", in_features))
    for size, kind, said in cases:
        references = load_references(folder, loaded(size), k=3, kind=kind)
        assert (references.nearest_in is not None) == (said == in_features)
        assert describe_references(references, loaded(size)).endswith(said)
    x = color(0.02, 0.0, 0.03)[None]  # nearly black: in pixels nearest to what is darkest, by its color to red
    assert load_references(folder, loaded(8), k=1, kind="pixels").choose_for(x, 2).nearest == "1.png"
    found = load_references(folder, loaded(8), k=1, kind="features").choose_for(x, 2)
    assert found.nearest == "0.png"
    assert found.references.nearest_in is not None


def test_made_references_by_size_and_by_name() -> None:
    assert make_references(loaded(64)) is None
    assert isinstance(make_references(loaded(65)), MadeReferences)
    assert make_references(loaded(96), "none") is None
    grey = make_references(loaded(8), "grey")
    assert grey is not None
    assert grey.filling == "grey"


@pytest.mark.parametrize("name", ["relevance", "IntegratedGradients", "zennit:epsilon_gamma", "Occlusion"])
def test_every_method_compares_with_the_image_itself(name: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    x, method = torch.rand(1, 3, 12, 12), explainer(name)
    found = method.against(net, x, 1, MadeReferences("inpainted"))
    blank = method.nontarget(net, x, 1, "negated", make_reference(x, "inpainted"))  # minus the target
    torch.testing.assert_close(found.attribution, -blank.attribution, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.absence, (-found.attribution).clamp(min=0))
    with torch.no_grad():
        assert found.output == pytest.approx(float(net(x)[0, 1]), abs=1e-5)


@pytest.fixture
def photograph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[str]:
    monkeypatch.chdir(tmp_path)
    noise = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    save_image(nn.functional.interpolate(noise, (80, 80), mode="bicubic").clamp(0, 1)[0], tmp_path / "a.png")
    module = f"nets_{abs(hash(request.node.nodeid))}"  # a module is imported once per process
    (tmp_path / f"{module}.py").write_text(NETS)
    return ["explain", "a.png", "--model", f"{module}:small", "--size", "80", "--out", "page"]


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, arguments)
    page = Path("page/index.html")
    return result.exit_code, " ".join(result.output.split()), page.read_text(encoding="utf-8") if page.exists() else ""


@pytest.mark.slow
def test_a_photograph_alone_has_a_reference_map_that_says_of_which_kind(photograph: list[str]) -> None:
    code, said, page = run(*photograph, "--method", "relevance")
    assert code == 0
    assert "of 1 reference map" in said
    assert "each image is compared with itself, blurred" in page
    assert "Made from the image itself" in page
    code, said, page = run(*photograph, "--method", "Saliency", "--quiet")  # takes no references
    assert code == 0
    assert "Without --references FOLDER only the non-target map" in page


@pytest.mark.slow
def test_another_kind_or_none(photograph: list[str]) -> None:
    code, _, page = run(*photograph, "--reference-kind", "inpainted")
    assert code == 0
    assert "Against the image itself, inpainted." in page
    code, _, page = run(*photograph, "--reference-kind", "none", "--quiet")
    assert code == 0
    assert "Without --references FOLDER only the non-target map" in page


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--reference-kind", "blured"), "must be one of blurred, "),
        (("--reference-kind", "features"), "it needs --references FOLDER"),
        (("--reference-kind", "grey", "--references", "."), "takes no --references"),
        (("--reference-kind", "grey", "--method", "Saliency"), "takes no --references"),
    ],
)
def test_kinds_that_do_not_fit_are_rejected(photograph: list[str], more: tuple[str, ...], words: str) -> None:
    code, said, _ = run(*photograph, *more)
    assert code == 2
    assert words in said


def test_the_chosen_references_are_ranked_once_for_their_image(folder: Path) -> None:
    x, other = color(0.0, 0.2, 0.9)[None], color(0.0, 0.9, 0.2)[None]
    model = loaded(8)
    references = load_references(folder, model, k=3, kind="features")
    chosen = references.choose_for(x, 0).references
    plain = ReferenceSet(chosen.images[0], empty=chosen.empty[0], k=chosen.k, nearest_in=chosen.nearest_in)
    expected = [plain.nearest(one) for one in (x, other)]
    seen: list[int] = []
    with counting(model.model, seen.append):
        assert torch.equal(chosen.nearest(x), expected[0])
        assert not seen
        assert torch.equal(chosen.nearest(other), expected[1])
        assert seen
    assert not torch.equal(*expected)

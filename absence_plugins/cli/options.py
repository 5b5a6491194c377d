"""Options that several commands have, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from absence_plugins.commands.known_words import LABEL_FORMATS

Model = Annotated[
    str,
    typer.Option(
        help="torchvision:NAME, timm:NAME, hf:FOLDER (of save_pretrained), module:factory, digits, or efficientnet-lite0."
    ),
]
Weights = Annotated[
    str,
    typer.Option(help="A file (safetensors, a state dict or checkpoint), DEFAULT (torchvision's or timm's), or none."),
]
Size = Annotated[int | None, typer.Option(help="Side of the model's input; default: the model's own, or 224.")]
Channels = Annotated[int | None, typer.Option(help="1 for grayscale models; default: the model's own, or 3.")]
LayerChannels = Annotated[
    str,
    typer.Option(
        "--channels",
        help="The layer's axis of channels: auto, first, or last; and of the images, 1 for grayscale models: 1, or 1,last.",
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(help="Normalization, comma-separated; default: what the model publishes, or none."),
]
Std = Annotated[str | None, typer.Option(help="As --mean.")]
Patch = Annotated[int | None, typer.Option(help="Side of a patch in pixels; default 64 (digits 12).")]
Stride = Annotated[int | None, typer.Option(help="Step of the grid in pixels; default 16 (digits 4).")]
PatchesPerSide = Annotated[int, typer.Option("--k", help="Patches per unit and side.")]
PatchesPerForward = Annotated[int | None, typer.Option(help="Patches per forward; default 128 (digits 256).")]
ScanMode = Annotated[
    str | None, typer.Option(help="crop, or mask for networks of a fixed input size; default crop (digits mask).")
]
Reduce = Annotated[str, typer.Option(help="Over positions or tokens: mean, max, min, sum or cls.")]
Attributes = Annotated[
    Path | None, typer.Option(help="Table (CSV, TSV, JSON): class,ATTRIBUTE,... with 0 or 1 per class.")
]
Labels = Annotated[
    Path | None,
    typer.Option(
        help="Labels of the images: a table file,CONCEPT,... (1, 0; blank is unknown), or a file of a public data set; and not the class folders.",
    ),
]
LabelsFormat = Annotated[
    str, typer.Option(help=f"Of --labels: {', '.join(LABEL_FORMATS)}; auto tells it by the content.")
]
LabelsThreshold = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBER|auto",
        help="Of a table with probabilities or scores: a concept is present above it; auto: each concept's own, chosen on the searched images (not with --hypernyms).",
    ),
]
LabelsMinus = Annotated[
    str,
    typer.Option(help="What -1 means in a table: absent, unknown, or auto (absent where the table has no 0)."),
]
Hypernyms = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|wordnet",
        help="What is a kind of what; parents become concepts: a table child,parent, JSON, or WordNet for classes such as n02123045.",
    ),
]
Groups = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|auto|none",
        help="Images that are not independent stay on one side of a split: a table file,group; auto: crops and other versions of a picture, too; default: exact copies.",
    ),
]
NameScore = Annotated[
    str,
    typer.Option(
        help="What a name makes high: auc, auprc (above chance), f1, iou (of the unit's firing, at a threshold that is chosen) or correlation."
    ),
]
Prefer = Annotated[
    str, typer.Option(help="short (every concept must earn its place), or score (the highest score, however long).")
]
NameSearch = Annotated[
    str,
    typer.Option(help="certified (the best is proven, or bounded), beam, or auto (certified where that costs little)."),
]
NameBudget = Annotated[
    float, typer.Option(help="Formulas that certified may score per unit; what is left over is bounded.")
]
MinSupport = Annotated[
    int | None,
    typer.Option(
        help="Least number of images (or groups) on which a name holds, and fails, in both halves; default 5, of small halves a tenth.",
        show_default=False,
    ),
]
Page = Annotated[Path, typer.Option(help="Folder for the page.")]
Workers = Annotated[int, typer.Option(help="Processes that read images ahead.")]
Seed = Annotated[int, typer.Option(help="Seed.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars and no summary; only paths and warnings.")]

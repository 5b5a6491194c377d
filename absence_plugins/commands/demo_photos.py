"""``absence-plugins demo --photos``: what holds classes down in real photographs, on a trained ImageNet network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.commands.demo_findings import DRAWS, RIVALS, Finding, choose_findings, lead_elsewhere, measure_all
from absence_plugins.commands.models import LoadedModel, load_model
from absence_plugins.commands.provenance import provenance
from absence_plugins.commands.rows import denormalize
from absence_plugins.core.checks import check_integer
from absence_plugins.core.files import require_folder, write_json
from absence_plugins.data.photographs import PHOTOGRAPHS, photograph_crops
from absence_plugins.methods.insertion import InsertionResult, insertion_test
from absence_plugins.methods.patches import ExtremePatches, find_extreme_patches
from absence_plugins.report import Page, Panel, Row, Table, write_page
from absence_plugins.report.pages.page import row_id
from absence_plugins.report.pages.patch_rows import HOW_TO_READ as PATCHES_READ
from absence_plugins.report.pages.patch_rows import normalized_to_picture, unit_row

MODEL = "efficientnet-lite0"
MOST = len(PHOTOGRAPHS)
LAYER = "blocks.3.0.bn1"  # expands 80 channels to 480: the middle of the network
UNITS = 12  # of its units, the first ones
CROPS, CROP, PATCH, STRIDE = 8, 128, 48, 16  # per photograph; pixels
LINE = 2  # pixels of an outline

LEAD = """A network that says "{winner}" has also looked for what a {rival} must not have. Every row shows a photograph, a
class that the network nearly says, and the region that holds this class down: made grey, the class rises, further than
when the same shape is made grey at any of {draws} other places; and it rises, too, when the region is inpainted.

Chosen by measurement: on each of {photographs} photographs one region was named for each of the {rivals} classes behind the
winner, by relevance of differences. Of these {claims} claims {held} hold, where at most {chance:.1f} would if every region were like
its shape elsewhere. Superpixels follow objects and the shifted shape does not, so by chance it is more. The table begins with
the class that rises furthest beyond the most favorable other place; every photograph is shown once.{few} That is a choice among
{claims}, and so has its control: where another place takes the part of each claim's region, the largest lead among all of
them is {largest:.2f} on average and {most:.2f} at most."""

HOW_TO_READ = (
    (
        "Map",
        "Relevance of differences of the class, against the photograph itself with an eighth of its superpixels made "
        "grey, eight times, so that each is grey once. Blue holds the class down, red raises it.",
    ),
    (
        "Region",
        "Neighboring superpixels with the most blue, between 2 and 12 % of the photograph; the map named it before it "
        "was tested.",
    ),
    ("Made grey", "The region in the photograph's mean color, and the class's output read again."),
    (
        "Elsewhere",
        f"The same shape made grey at {DRAWS} random other places of the photograph: mean and standard deviation, and "
        "the largest rise among them.",
    ),
    (
        "Inpainted",
        "The same region continued smoothly from its surroundings in place of grey. Where both agree, it is not the grey "
        "that the class likes.",
    ),
    *PATCHES_READ,
)


def run_demo_photos(out: Path | str, *, findings: int = 5, seed: int = 0, progress: bool = True) -> Path:
    """Measure all claims, show the findings that hold best, and a unit; returns the path of ``index.html``.

    Beside it: ``results.json`` with every claim.

    Raises:
        ValueError: ``out`` is a file, or a number of findings that cannot be shown.
        ImportError: the extra ``photos`` is missing.
    """
    if check_integer("findings", findings) > MOST:
        raise ValueError(f"findings={findings} must lie between 1 and {MOST}; every photograph is shown once")
    out = require_folder(out)
    loaded = load_model(MODEL)
    claims = measure_all(loaded.model, seed=seed, progress=progress)
    chosen = choose_findings(claims, findings)
    tested, patches, crops = _test_units(loaded, seed, progress)
    unit = min(tested, key=lambda one: (not one.flagged, one.q, -one.effect)).unit
    show = normalized_to_picture(loaded.preprocessing.mean, loaded.preprocessing.std)
    row = unit_row(patches, unit, crops, show, tested=tested, name=f"A unit's two sides: {LAYER}, unit {unit}")
    page = Page(
        title="What holds a class down: encoded absences in photographs",
        lead=_lead(claims, chosen, findings, loaded),
        rows=(*(finding_row(finding, loaded) for finding in chosen), row),
        how_to_read=HOW_TO_READ,
        footer="EfficientNet-Lite0 as trained on ImageNet, the photographs that scikit-image ships, nothing retouched.",
        provenance=provenance(seed=seed, command=f"absence-plugins demo --photos --findings {findings} --seed {seed}"),
        table=findings_table(chosen, loaded),
    )
    path = write_page(page, out)
    names = {"winner_name": "winner", "rival_name": "rival"}
    described = [
        one | {name: short_name(loaded, one[key]) for name, key in names.items()}
        for one in (c.to_dict() for c in claims)
    ]
    shown = [(finding.name, finding.rival) for finding in chosen]
    control = lead_elsewhere(claims).tolist()
    results = {
        "claims": described,
        "lead_elsewhere": control,
        "shown": shown,
        "unit": {"layer": LAYER, "shown": unit, **tested.to_dict()},
    }
    write_json(out / "results.json", results)
    return path


def short_name(loaded: LoadedModel, index: int) -> str:
    """A class by its name alone."""
    return loaded.categories[index]


def _lead(claims: Sequence[Finding], chosen: Sequence[Finding], asked: int, loaded: LoadedModel) -> str:
    few = f" No more than {len(chosen)} photographs have one that holds." if len(chosen) < asked else ""
    elsewhere = lead_elsewhere(claims)
    example = chosen[0] if chosen else claims[0]
    return LEAD.format(
        winner=short_name(loaded, example.winner),
        rival=short_name(loaded, example.rival),
        draws=DRAWS,
        photographs=len({claim.name for claim in claims}),
        rivals=RIVALS,
        claims=len(claims),
        held=sum(claim.holds for claim in claims),
        chance=len(claims) / (DRAWS + 1),
        few=few,
        largest=float(elsewhere.mean()),
        most=float(elsewhere.max()),
    )


def findings_table(chosen: Sequence[Finding], loaded: LoadedModel) -> Table:
    """The findings in their order, with the numbers that it goes by."""
    rows = tuple(
        (
            f"{finding.name}: {short_name(loaded, finding.rival)}",
            f"{finding.test.before:.1f} → {finding.test.after:.1f}",
            f"{finding.test.change:+.2f}",
            f"{finding.test.random_change:+.2f} ± {finding.test.random_sd:.2f}",
            f"{finding.largest_elsewhere:+.2f}",
            f"{finding.lead:+.2f}",
            f"{short_name(loaded, finding.winner)} {finding.test.target_change:+.2f}",
        )
        for finding in chosen
    )
    return Table(
        "The findings, the largest lead first",
        ("photograph: class", "output", "change", "elsewhere", "largest elsewhere", "lead", "winner"),
        rows,
        tuple(f"#{row_id(number)}" for number in range(1, len(rows) + 1)),
    )


def finding_row(finding: Finding, loaded: LoadedModel) -> Row:
    """A finding: photograph, map, region, the photograph without it, and the numbers with their control."""
    test, winner, rival = finding.test, short_name(loaded, finding.winner), short_name(loaded, finding.rival)
    inpainted = test.others["inpainted"]
    sentence = (
        f"The network says {winner}. The outlined {test.share:.0%} of the photograph hold '{rival}' down: made grey, "
        f"its output rises from {test.before:.1f} to {test.after:.1f}; the same shape elsewhere changes it by "
        f"{test.random_change:+.2f} ± {test.random_sd:.2f}, and by {finding.largest_elsewhere:+.2f} at the most favorable "
        f"of {DRAWS} places. '{winner}' goes from {test.target_before:.1f} to {test.target_after:.1f}. With the region "
        f"inpainted '{rival}' changes by {inpainted:+.2f}."
    )
    facts = (
        (f"'{rival}' before / after", f"{test.before:.2f} / {test.after:.2f}"),
        ("Change elsewhere", f"{test.random_change:+.2f} ± {test.random_sd:.2f}"),
        ("Largest elsewhere", f"{finding.largest_elsewhere:+.2f}"),
        ("Inpainted", f"{inpainted:+.2f}"),
        (f"'{winner}' before / after", f"{test.target_before:.2f} / {test.target_after:.2f}"),
        ("Region", f"{test.share:.1%} of the photograph"),
    )
    return Row(f"{finding.name}: what holds '{rival}' down", sentence, finding_panels(finding, loaded), facts)


def finding_panels(finding: Finding, loaded: LoadedModel) -> tuple[Panel, ...]:
    """The photograph, the map over it, the region outlined, and the photograph without it."""
    test, winner, rival = finding.test, short_name(loaded, finding.winner), short_name(loaded, finding.rival)
    picture = denormalize(finding.x[0], loaded)
    return (
        Panel("image", picture, "The photograph", f"The network says {winner} ({test.target_before:.1f})."),
        Panel(
            "signed",
            finding.attribution,
            f"What holds '{rival}' down",
            "Blue: content that holds it down.",
            photograph=picture,
            regions=finding.labels,
            positive=f"raises {rival}",
            negative=f"holds {rival} down",
        ),
        Panel(
            "image", outline_region(picture, test.where), "The region it names", f"{test.share:.0%} of the photograph."
        ),
        Panel(
            "image",
            denormalize(test.image, loaded),
            "The region made grey",
            f"'{rival}': {test.before:.1f} becomes {test.after:.1f}.",
        ),
    )


def outline_region(picture: Tensor, where: Tensor) -> Tensor:
    """A picture [3, H, W] with the edge of a region [H, W] in white, and black around it.

    >>> where = torch.zeros(9, 9, dtype=torch.bool)
    >>> where[4, 4] = True
    >>> outline_region(torch.full((3, 9, 9), 0.5), where)[0, 4].tolist()
    [0.0, 0.0, 1.0, 1.0, 0.5, 1.0, 1.0, 0.0, 0.0]
    """
    inner = _grow(where, LINE) & ~where
    outer = _grow(where, 2 * LINE) & ~where & ~inner
    return picture.masked_fill(outer, 0.0).masked_fill(inner, 1.0)


def _grow(where: Tensor, pixels: int) -> Tensor:
    grown = F.max_pool2d(where[None].float(), 2 * pixels + 1, 1, pixels)
    return grown[0] > 0


def _test_units(loaded: LoadedModel, seed: int, progress: bool) -> tuple[InsertionResult, ExtremePatches, Tensor]:
    """Extreme patches of a layer on every other photograph, tested on the photographs between them."""
    crops = torch.cat([photograph_crops(name, CROPS, side=CROP, seed=seed) for name in PHOTOGRAPHS])
    scanned = [i for i in range(len(crops)) if i // CROPS % 2 == 0]
    patches = find_extreme_patches(
        loaded.model,
        LAYER,
        crops,
        size=PATCH,
        stride=STRIDE,
        reduce="mean",
        units=range(UNITS),
        images=scanned,
        seed=seed,
        progress=progress,
    )
    tested = insertion_test(
        loaded.model, LAYER, crops, patches, images_per_unit=2 * CROPS, seed=seed, progress=progress
    )
    return tested, patches, crops

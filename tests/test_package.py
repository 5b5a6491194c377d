"""The package as a whole: what importing it loads, what a missing host says, what the docs list."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from adapter_table import ADAPTERS

import absence_plugins

ROOT = Path(__file__).resolve().parents[1]
HOSTS = ["captum", "zennit", "lucent", "matplotlib", "jinja2", "sklearn", "torchvision", "tqdm", "scipy", "typer"]


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_importing_the_package_loads_no_host_and_nothing_beside_torch() -> None:
    """What is loaded beyond ``import torch`` is this package, so importing it costs no more than reading it."""
    program = (
        "import sys, json, torch; before = set(sys.modules); import absence_plugins; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    loaded = [name for name in json.loads(run(program)) if not name.startswith("absence_plugins")]
    assert all(name.split(".")[0] in sys.stdlib_module_names for name in loaded), loaded


@pytest.mark.parametrize(
    ("module", "host", "extra"),
    [
        ("captum", "captum", "captum"),
        ("zennit", "zennit", "zennit"),
        ("lucent", "lucent", "lucent"),
        ("report", "jinja2", "report"),
    ],
)
def test_a_missing_host_says_what_to_install(module: str, host: str, extra: str) -> None:
    program = (
        f"import sys; sys.modules[{host!r}] = None\n"
        f"try:\n    import absence_plugins.{module}\nexcept ImportError as error:\n    print(error)"
    )
    assert f'pip install "absence-plugins[{extra}]"' in run(program)


def test_the_package_imports_without_any_host() -> None:
    program = "import sys; " + "; ".join(f"sys.modules[{name!r}] = None" for name in HOSTS)
    assert (
        run(program + "; from absence_plugins import ReferenceSet, Unit, __version__ as v; print(v)").strip()
        == absence_plugins.__version__
    )


def test_version_is_that_of_the_installed_distribution() -> None:
    from importlib.metadata import version

    assert absence_plugins.__version__ == version("absence-plugins")


def test_version_is_that_of_the_citation() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {absence_plugins.__version__}\n" in citation


def test_the_migration_guide_lists_every_class() -> None:
    page = (ROOT / "docs" / "reference" / "captum-classes.md").read_text(encoding="utf-8")
    table = [line for line in page.splitlines() if line.startswith("| `Absence")]
    assert {name for name in ADAPTERS if any(f"`{name}`" in line for line in table)} == set(ADAPTERS)
    assert len(ADAPTERS) == 39


def test_the_zennit_guide_lists_every_composite_and_rule() -> None:
    import absence_plugins.zennit as adapters

    pages = ("from-zennit.md", "zennit-rules.md", "reference/zennit-composites.md")
    page = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in pages)
    assert [name for name in adapters.__all__ if f"`{name}" not in page and name != "Explanation"] == []


def test_the_lucent_guide_lists_every_name() -> None:
    import absence_plugins.lucent as adapters

    page = (ROOT / "docs" / "from-lucent.md").read_text(encoding="utf-8")
    unsaid = {
        "AbsenceObjective",
        "Reached",
        "Rendering",
        "as_objective",
        "contrast",
    }  # results, and other names of these
    assert [name for name in adapters.__all__ if name not in page and name not in unsaid] == []

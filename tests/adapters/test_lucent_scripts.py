"""Scripts in the shapes of Lucent's notebooks, with one changed line: the import of render_vis."""

from __future__ import annotations

import pytest
from script_runs import FOLDER, differing, run, scripts, swapped


@pytest.mark.parametrize("name", scripts("lucent"))
def test_with_lucents_objectives_the_images_are_lucents(name: str) -> None:
    source = (FOLDER / f"lucent_{name}.py").read_text()
    changed = swapped(source, r"^from lucent\.optvis\.render import", "from absence_plugins.lucent import")
    assert not differing(run(f"lucent_{name}"), run(f"lucent_{name}", changed))

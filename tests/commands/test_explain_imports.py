"""``explain`` imports only what it asks for: other packages cost more seconds than a photograph's maps."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torchvision", "timm", "captum", "zennit", "lucent", "scipy", "sklearn", "pandas", "matplotlib.pyplot", "sympy",
         "torch._dynamo", "IPython", "transformers", "skimage")  # fmt: skip


def test_the_default_needs_no_host_and_none_of_the_large_packages() -> None:
    words = (
        "import sys, absence_plugins.commands.explain, absence_plugins.commands.models, absence_plugins.data.photographs\n"
        "from absence_plugins.commands.maps.explainers import explainer\n"
        "explainer('relevance')\n"
        f"print(*(name for name in {HEAVY} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

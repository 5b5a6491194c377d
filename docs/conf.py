"""Sphinx configuration: ``sphinx-build -W docs docs/_build/html``."""

import absence_plugins

project = "absence_plugins"
author = "The absence_plugins authors"
release = version = absence_plugins.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
# Inherited docstrings are the host's own and written for its own docs.
autodoc_inherit_docstrings = False
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "absence_plugins"

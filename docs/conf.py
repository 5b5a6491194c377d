"""Sphinx configuration: ``sphinx-build -W docs docs/_build/html``."""

import contextlib
import io
import re
import warnings
from pathlib import Path

import typer
from docutils import nodes
from docutils.nodes import SkipNode
from docutils.parsers.rst import Directive
from docutils.utils.math.latex2mathml import tex2mathml

import absence_plugins.cli

project = "absence_plugins"
author = "The absence_plugins authors"
release = version = absence_plugins.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "myst-nb"}
exclude_patterns = ["_build", "_generated"]

# Only tutorials are notebooks (their first lines say so); each is run in a folder of its own when the docs are built.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_show_tb = True

myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
# Inherited docstrings are the host's own and written for its own docs.
autodoc_inherit_docstrings = False
napoleon_numpy_docstring = False

smartquotes = False  # "--mean" stays two hyphens
html_theme = "furo"
html_title = "absence_plugins"
html_show_copyright = False

html_math_renderer = "mathml"  # built in; browsers show it without a script or a network
html_static_path = ["_static"]
html_css_files = ["pages.css"]

GALLERIES = ("gallery.md", "gallery-kinds.md", "gallery-units.md", "faithfulness.md", "missing-sets.md")


def draw_galleries(app):
    """Run the galleries' code in docs/_generated, where their pictures are looked for: never older than the code."""
    source = Path(app.srcdir)
    folder = source / "_generated"
    folder.mkdir(exist_ok=True)
    for name in GALLERIES:
        namespace = {"__name__": "__main__"}
        page = (source / name).read_text(encoding="utf-8")
        for block in re.finditer(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
            # Blank lines in front, so that a traceback shows the line of the page.
            code = "\n" * page.count("\n", 0, block.start(1)) + block[1]
            bars = contextlib.redirect_stderr(io.StringIO())
            with contextlib.chdir(folder), warnings.catch_warnings(), bars:
                warnings.simplefilter("ignore")
                exec(compile(code, name, "exec"), namespace)


def write_math(translator, node):
    """A formula as MathML, in the line or as a block."""
    is_block = node.tagname == "math_block"
    markup = tex2mathml(node.astext())
    translator.body.append(markup.replace("<math ", '<math display="block" ', 1) if is_block else markup)
    raise SkipNode


class Commands(Directive):
    """Every command of the package with its arguments and options, from the program itself."""

    def run(self):
        group = typer.main.get_command(absence_plugins.cli.app)
        return [self.describe(name, command) for name, command in group.commands.items()]

    def describe(self, name, command):
        section = nodes.section(ids=[name], names=[name])
        words = [one.name.upper() for one in command.params if one.param_type_name == "argument"]
        section += nodes.title(text=name)
        section += [nodes.paragraph(text=" ".join(part.split())) for part in command.help.split("\n\n")]
        usage = " ".join(["absence-plugins", name, *words, "[OPTIONS]"])
        section += nodes.literal_block(usage, usage, language="text")
        options = nodes.definition_list()
        for one in command.params:
            is_word = one.param_type_name == "argument"
            title = one.name.upper() if is_word else ", ".join([*one.opts, *one.secondary_opts])
            default = "" if is_word or one.default in (None, False) else f" Default: {one.default}."
            said = nodes.definition("", nodes.paragraph(text=f"{one.help or ''}{default}"))
            options += nodes.definition_list_item("", nodes.term("", "", nodes.literal(text=title)), said)
        section += options
        return section


def setup(app):
    app.add_directive("commands", Commands)
    app.add_html_math_renderer("mathml", inline_renderers=(write_math, None), block_renderers=(write_math, None))
    app.connect("builder-inited", draw_galleries)

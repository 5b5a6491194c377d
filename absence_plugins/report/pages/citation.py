"""What a reader takes from a page: how to cite it, and the command that makes it again."""

from __future__ import annotations

from absence_plugins import __version__
from absence_plugins.core.printable import is_shown

# Without an address: a page names none.
PAPER = """\
@inproceedings{hesse2026missing,
  title         = {What is Missing? Explaining Neurons Activated by Absent Concepts},
  author        = {Hesse, Robin and Schaub-Meyer, Simone and Hesse, Janina and Schiele, Bernt and Roth, Stefan},
  booktitle     = {International Conference on Machine Learning (ICML)},
  year          = {2026},
  eprint        = {2603.09787},
  archiveprefix = {arXiv}
}
"""
SOFTWARE = """\
@software{absence_plugins,
  title   = {absence_plugins},
  author  = {{The absence_plugins authors}},
  version = {VERSION},
  license = {Apache-2.0}
}
"""


def citation() -> str:
    """BibTeX of the paper on encoded absences and of this version of the package.

    >>> citation().splitlines()[0]
    '@inproceedings{hesse2026missing,'
    """
    return PAPER + SOFTWARE.replace("VERSION", __version__)


def code_of_row(command: str, number: int, heading: str) -> str:
    r"""The page's command with the row that is meant as a comment, in one line; "" without a command.

    >>> code_of_row("absence-plugins demo", 2, "Why a 3\nrm -r photos")
    'absence-plugins demo  # row 2: Why a 3 rm -r photos'
    """
    if not command:
        return ""
    # A file's name can hold a line break, and what follows it would be run where the text is pasted.
    said = "".join(letter if is_shown(letter) else " " for letter in heading)
    return f"{command}  # row {number}: {' '.join(said.split())}"

"""Every name of ``captum.attr``, ours where there is one: the one-line swap for whole scripts.

``IntegratedGradients`` is :class:`~absence_plugins.captum.AbsenceIntegratedGradients`, and so on for every class that
attributes, for ``TokenReferenceBase`` and for ``visualization``, in which texts are red and blue; what else attributes
nothing (``Summarizer``, ``TextTokenInput``, ...) is Captum's own.
The names are those of the Captum that is installed::

    import absence_plugins.captum.attr as attr  # was: import captum.attr as attr
    from absence_plugins.captum.attr import *   # was: from captum.attr import *

Sign, in every map: R > 0 raises the explained output, R < 0 holds it down; which output is explained follows
:class:`~absence_plugins.captum.AbsenceMethod`.

>>> import torch
>>> from absence_plugins.captum.attr import FeatureAblation, visualization
>>> net = torch.nn.Linear(2, 2, bias=False)
>>> net.weight.data = torch.tensor([[1.0, -1.0], [0.0, 1.0]])  # logit 0: x0 and not x1
>>> FeatureAblation(net).attribute(torch.tensor([[1.0, 2.0]]), target=1)
tensor([[ 1., -2.]])
>>> visualization.__name__, visualization.visualize_image_attr.__module__
('absence_plugins.captum.visualization', 'captum.attr._utils.visualization')
"""

from __future__ import annotations

from typing import Any

import captum.attr as _host

import absence_plugins.captum as _ours
from absence_plugins.captum import visualization as _visualization

__all__ = list(_host.__all__)

globals().update({_name: getattr(_ours, f"Absence{_name}", getattr(_host, _name)) for _name in __all__})
globals()["visualization"] = _visualization


def __getattr__(name: str) -> Any:
    """What ``captum.attr`` holds without exporting it is Captum's."""
    if name.startswith("__") or not hasattr(_host, name):  # with Captum's __path__ this would be a package of its files
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}, nor has 'captum.attr'")
    return getattr(_host, name)

"""`absence_plugins.captum.attr`: every name of captum.attr, ours where there is one."""

from __future__ import annotations

import importlib

import captum.attr as host
import pytest
from adapter_table import ADAPTERS

import absence_plugins.captum as adapters
import absence_plugins.captum.attr as attr
from absence_plugins.captum import visualization

TEXT = (
    "LLMAttribution", "LLMAttributionResult", "LLMGradientAttribution", "RemoteLLMAttribution", "TokenReferenceBase",
    "visualization",
)  # fmt: skip


@pytest.mark.parametrize("name", host.__all__)
def test_every_name_is_ours_or_captums_own(name: str) -> None:
    found, theirs = getattr(attr, name), getattr(host, name)
    if hasattr(adapters, f"Absence{name}"):
        assert found is getattr(adapters, f"Absence{name}")
        assert issubclass(found, theirs)
    elif name == "visualization":
        assert found is visualization
        assert all(hasattr(found, one) for one in dir(theirs) if not one.startswith("__"))
        assert found.visualize_image_attr is theirs.visualize_image_attr
        assert found.VisualizationDataRecord is theirs.VisualizationDataRecord
    else:
        assert found is theirs


def test_no_adapter_is_missing_and_no_name_is_added() -> None:
    assert attr.__all__ == host.__all__
    ours = {f"Absence{name}" for name in attr.__all__ if getattr(attr, name) is not getattr(host, name)}
    assert ours == {*ADAPTERS, "AbsenceNoiseTunnel", *(f"Absence{name}" for name in TEXT)}


def test_star_import_brings_all_names_and_nothing_else() -> None:
    namespace: dict[str, object] = {}
    exec("from absence_plugins.captum.attr import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(host.__all__)
    assert namespace["IntegratedGradients"] is adapters.AbsenceIntegratedGradients


def test_a_captum_that_exports_another_name_brings_it_along(monkeypatch: pytest.MonkeyPatch) -> None:
    new = type("NewMethod", (host.Attribution,), {})
    monkeypatch.setattr(host, "NewMethod", new, raising=False)
    monkeypatch.setattr(host, "__all__", [*host.__all__, "NewMethod"])
    try:
        assert importlib.reload(attr).NewMethod is new
    finally:
        monkeypatch.undo()
        del attr.NewMethod
        importlib.reload(attr)


def test_what_captum_does_not_export_is_captums_and_is_no_package_of_ours() -> None:
    assert attr._utils is host._utils
    with pytest.raises(AttributeError, match=r"no attribute 'Nothing', nor has 'captum.attr'"):
        attr.Nothing  # noqa: B018
    with pytest.raises(ModuleNotFoundError, match="is not a package"):
        importlib.import_module("absence_plugins.captum.attr._utils")

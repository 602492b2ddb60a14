"""Availability of the kernels."""

from importlib.metadata import metadata

import pytest
import torch
from packaging.requirements import Requirement

from mythos.layers import kernels


def test_versions_are_those_of_the_extra() -> None:
    declared = [Requirement(text) for text in metadata("mythos-pretrain").get_all("Requires-Dist") or []]
    pins = {one.name: str(one.specifier) for one in declared if one.name in kernels.VERSIONS}
    assert pins == {name: f"=={version}" for name, version in kernels.VERSIONS.items()}


def test_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for installed, is_used in (("0.6.5", True), ("0.6.6", False)):
        monkeypatch.setattr(kernels, "version", lambda package, installed=installed: installed)
        assert kernels._is_installed("quack-kernels") == is_used
    monkeypatch.undo()
    monkeypatch.setitem(kernels.VERSIONS, "no-such-package", "1")
    assert not kernels._is_installed("no-such-package")


def test_a_cpu_has_no_products_with_epilogues() -> None:
    assert not kernels.supports_gated(torch.empty(8, 8), torch.bfloat16, 8, 8)


def test_an_unaligned_tensor_is_copied() -> None:
    vector = torch.arange(9.0)
    assert kernels.aligned(vector) is vector
    copy = kernels.aligned(vector[1:])
    assert torch.equal(copy, vector[1:])
    assert copy.data_ptr() != vector[1:].data_ptr()

"""The table of systems is coremltools' own, where that has one."""

import pytest
from sd_mil.ir import OPSETS, TARGETS, names_from


def test_names_opsets_and_versions_are_those_of_coremltools():
    ct = pytest.importorskip("coremltools")
    theirs = {target.name: target.value for target in ct.target if target.value >= 6}
    theirs |= {name: value.value for name, value in ct.target.__members__.items() if value.value >= 6}
    ours = {
        name: target.specification
        for name, target in TARGETS.items()
        if not name.startswith(("visionOS", "iPadOS"))
    }
    assert ours == theirs
    for target in TARGETS.values():
        assert ct._OPSET[target.specification] == target.core_ml
        assert ct.target[target.opset].value == target.specification


def test_a_year_has_one_opset_for_all_its_systems():
    assert {TARGETS[name].core_ml for name in ("iOS26", "macOS26", "tvOS26", "watchOS26")} == {"CoreML9"}
    assert TARGETS["visionOS2"].core_ml == TARGETS["iPadOS18"].core_ml == TARGETS["macOS15"].core_ml
    assert [target.number for target in OPSETS.values()] == [15, 16, 17, 18, 26]
    assert {TARGETS[name].number for name in names_from(18)} == {18, 26}


def test_operations_and_parameters_are_as_old_as_in_coremltools():
    pytest.importorskip("coremltools")
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry
    from sd_mil.ir.opsets import DROPPED, FIRST, FIRST_PARAMETER

    first, parameters, dropped = {}, {}, {}
    for kind, versions in SSAOpRegistry.core_ops.items():
        forms = {max(15, int(version.name[3:])): form for version, form in sorted(versions.items())}
        known = None
        for number, form in forms.items():
            names = set(form.input_spec.input_types)
            if known is None:
                first[kind] = number
            else:
                parameters |= {(kind, name): number for name in names - known}
                dropped |= {(kind, name): number for name in known - names}
            known = names
    theirs = {kind: number for kind, number in first.items() if number > 15}
    ours = {kind: number for kind, number in FIRST.items() if kind in first}
    assert ours == theirs
    assert dict(FIRST_PARAMETER) == parameters
    assert dict(DROPPED) == dropped

"""Packages rewritten so that lint finds less in them, and proof that their outputs are what they were."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sd_bundle import Bundle, Draft
    from sd_mil import Comparison, Package, Pipeline
    from sd_mil.analysis.lint import Finding


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be mended, and how it is to be proved."""

    device: Any
    system: int
    rules: tuple[str, ...]
    min_psnr: float
    seed: int


@dataclass(frozen=True, slots=True)
class Mended:
    """A package after its repair: its findings before and after, and how far its outputs are from before.

    ``left`` has each finding that is still there, with the reason. ``proofs``: comparisons by function; of a
    pipeline one, of the whole, whose name is empty.
    """

    name: str
    before: tuple[Finding, ...]
    left: tuple[tuple[Finding, str], ...]
    proofs: dict[str, Comparison]

    @property
    def mended(self) -> tuple[Finding, ...]:
        """The findings that are gone."""
        left = {_key(one) for one, _ in self.left}
        return tuple(one for one in self.before if _key(one) not in left)


def _key(finding: Finding) -> tuple[str, str, str]:
    return finding.rule.id, finding.model, finding.function


def repair_package(path: Path, place: Path, wanted: Wanted) -> Mended:
    """Write the model at ``path`` to ``place`` without what lint finds in it, and prove it there.

    Of a pipeline each program is rewritten for what is found in it; all else of it is as before.

    Nothing is written where nothing can be mended.

    Raises:
        click.ClickException: the outputs changed; the package at ``place`` has to be removed.
        sd_mil.SdMilError: the model cannot be read or run.
    """
    from sd_mil import read_model
    from sd_mil.analysis.lint import lint, obstacles, repaired
    from sd_mil.format import write_model
    from sd_mil.ir import programs_in, with_programs

    model = read_model(path)
    programs = dict(programs_in(model, model.path))
    before = lint(model, wanted.device, wanted.system).findings
    chosen = [one for one in before if one.rule.repair and (not wanted.rules or one.rule.id in wanted.rules)]
    after = {
        name: repaired(program, [one for one in chosen if one.model == name])
        for name, program in programs.items()
    }
    mended = with_programs(model, after, model.path)
    if mended is model:
        left = tuple((one, _why(obstacles(programs[one.model], one))) for one in before)
        return Mended(path.name, before, left, {})
    write_model(place, mended, identity=path.stem)
    written = read_model(place)
    proofs = dict(_proofs(model, written, wanted))
    findings = lint(replace(written, path=model.path), wanted.device, wanted.system).findings
    left = tuple((one, _why(obstacles(after[one.model], one))) for one in findings)
    return Mended(path.name, before, left, proofs)


def _why(reasons: list[str]) -> str:
    return "; ".join(reasons) or "it was not asked for"


def _proofs(
    model: Package | Pipeline, written: Package | Pipeline, wanted: Wanted
) -> Iterator[tuple[str, Comparison]]:
    """Each function of both on the same inputs, or each pipeline whole, one model in memory at a time."""
    from sd_mil import Package, compare_outputs

    for name in model.program.functions if isinstance(model, Package) else ("",):
        values, expected = _outputs(model, name, wanted.seed)
        _, got = _outputs(written, name, wanted.seed, values)
        comparison = compare_outputs(expected, got)
        if not comparison.passed(wanted.min_psnr):
            raise click.ClickException(
                f"expected outputs within {wanted.min_psnr:g} dB of those before, got {comparison.worst} "
                f"in {f'function {name}' if name else 'the pipeline'} of {Path(model.path).name}; "
                "nothing was written"
            )
        yield name, comparison


def _outputs(
    read: Package | Pipeline, function: str, seed: int, values: dict[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The inputs, drawn unless they are given, and what comes out."""
    from sd_mil import MLModel

    from sdc.inputs import assemble

    model = MLModel(read, "portable", function_name=function or None)
    if values is None:
        values = assemble(model, (), rest_random=True, resize=False, seed=seed)
    return values, model.predict(values, model.make_state() if model.states else None)


def repair_bundle(bundle: Bundle, output: Path, wanted: Wanted) -> list[Mended]:
    """As :func:`repair_package`, for every package of a bundle; all else is copied.

    Nothing is written where nothing can be mended in any of them.
    """
    from sd_bundle import new_bundle

    class Nothing(Exception):  # noqa: N818 - leaves the draft, which is then removed
        pass

    manifest, results = bundle.manifest, []
    try:
        with new_bundle(output, manifest.model, provenance=manifest.provenance) as draft:
            done: list[str] = []
            for component in manifest.components:
                places = draft.add_packages(component)
                for name, place in zip(component.packages, places, strict=True):
                    result = repair_package(bundle.checked_folder(name), place, wanted)
                    results.append(result)
                    done += [name] if result.proofs else []
            if not done:
                raise Nothing
            _copy_others(bundle, draft, tuple(f"{name}/" for name in done))
    except Nothing:
        return results
    return results


def _copy_others(bundle: Bundle, draft: Draft, replaced: tuple[str, ...]) -> None:
    files = [name for name in bundle.manifest.files if not name.startswith(replaced)]
    with bundle.unchanged(*files):
        for name in files:
            draft.copy_file(bundle.path / name, name)
            draft.add_hash(name, bundle.manifest.files[name].sha256)

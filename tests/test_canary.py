"""The canaries' commands, and what is said when one dies; nothing is installed here."""

import re

import canary
import pytest


def test_every_canary_has_its_commands(capsys):
    assert canary.main(["--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("uv venv") == len(canary.CANARIES)
    assert "--resolution lowest-direct" in printed
    assert "import sd_mil; import sd_bundle" in printed


def test_the_quick_tests_exist():
    assert [path for path in canary.QUICK if not (canary.ROOT / path).exists()] == []


def test_every_override_is_of_a_library_that_we_need():
    projects = "".join((folder / "pyproject.toml").read_text() for folder in canary.members(canary.ROOT))
    for one in canary.CANARIES:
        for requirement in one.overrides:
            assert f'"{requirement.partition(">")[0]}>=' in projects


def test_prereleases_are_of_what_is_overridden(tmp_path):
    (one,) = [one for one in canary.CANARIES if one.name == "coremltools"]
    seen = []
    canary.sing(one, canary.ROOT, tmp_path, "python3", run=lambda command, _: seen.append(command))
    assert (tmp_path / "coremltools.txt").read_text() == "coremltools>=9.0\n"
    assert "--prerelease-package coremltools=allow" in " ".join(seen[1])
    for each in canary.CANARIES:
        assert set(each.prereleases) <= {line.partition(">")[0] for line in each.overrides}


@pytest.mark.parametrize(("fails", "status"), [(None, 0), ("import sd_mil", 1)])
def test_what_died_is_named_and_the_others_go_on(fails, status, capsys):
    seen = []

    def run(command, root):
        seen.append(command)
        return int(fails is not None and any(fails in part for part in command))

    assert canary.main(["lowest", "numpy"], run=run) == status
    printed = capsys.readouterr().out
    assert ("lowest: died of" in printed) == bool(status)
    assert ("numpy: lives" in printed) != bool(status)
    assert sum("venv" in command for command in seen) == 2


def test_the_scheduled_workflow_has_every_canary():
    workflow = (canary.ROOT / ".github/workflows/canary.yml").read_text()
    assert f"canary: [{', '.join(one.name for one in canary.CANARIES)}]" in workflow


def test_the_workflows_ask_for_files_that_are_here():
    for path in (canary.ROOT / ".github/workflows").glob("*.yml"):
        for name in set(re.findall(r"(?:tools/\w+\.py|\.ci/run)", path.read_text())):
            assert (canary.ROOT / name).exists(), (path.name, name)


OURS = {"OWNER/sdc@v0"}  # in the README's example, where the reader sets the owner


def test_what_others_wrote_is_named_by_commit():
    """A tag can be moved to other code; a commit cannot. One version of each, that Dependabot moves."""
    files = [canary.ROOT / "action.yml", canary.ROOT / "action" / "README.md"]
    files += (canary.ROOT / ".github/workflows").glob("*.yml")
    files += (canary.ROOT / "docs").rglob("*.md")
    used = {
        (path.name, use)
        for path in files
        for use in re.findall(r"^[ -]*uses: *(.+?) *$", path.read_text(), re.MULTILINE)
        if not use.startswith("./") and use not in OURS
    }
    assert len(used) >= 20
    assert [use for use in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use[1])] == []
    assert len({use for _, use in used}) == len({use.partition("@")[0] for _, use in used})
    assert "package-ecosystem: github-actions" in (canary.ROOT / ".github/dependabot.yml").read_text()

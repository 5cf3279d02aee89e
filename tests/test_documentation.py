"""What the documentation says is done: every block of Python runs, and every line of ``sdc``.

In ``sh`` blocks each line is run, in ``console`` blocks (long work, the network, a Mac) it is read by the
command's own parser, so that no option is wrong. Other languages are not executed.
"""

import ast
import posixpath
import re
import shlex
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("openvino")

import click
import reference
import site_pages
from public_names import MODULES

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
#: Not executed: their languages.
OTHERS = {"text", "swift", "yaml"}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


def commands(text):
    return [shlex.split(line, comments=True)[1:] for line in text.splitlines() if line.startswith("sdc ")]


def run(arguments, monkeypatch, capsys):
    from sdc.cli import main

    monkeypatch.setattr(sys, "argv", ["sdc", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code, (arguments, capsys.readouterr().err)


def parse(arguments):
    """Hold a command line against the command's options; files need not be there."""
    from sdc.cli import cli

    command = cli.get_command(click.Context(cli), arguments[0])
    assert command is not None, arguments
    with pytest.MonkeyPatch.context() as patch:  # the options are those of the command that other tests run
        for parameter in command.params:
            if isinstance(parameter.type, click.Path):
                patch.setattr(parameter.type, "exists", False)
        command.make_context(arguments[0], arguments[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_block_works(page, monkeypatch, capsys, request):
    if page.stem == "index":  # its first lines are those of sdc's README, which test_sdc_readme runs
        monkeypatch.setitem(globals(), "run", lambda arguments, *_: parse(arguments))
    namespace = {"__name__": "guide"}
    for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(text, str(page), "exec"), namespace)  # noqa: S102
            for node in ast.parse(text).body:
                if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                    fixtures = {each.arg: request.getfixturevalue(each.arg) for each in node.args.args}
                    namespace[node.name](**fixtures)
        elif language == "sh":
            for line in commands(text):
                run(line, monkeypatch, capsys)
        elif language == "console":
            for line in commands(text):
                parse(line)
        else:
            assert language in OTHERS, (page, language)


def test_a_wrong_option_is_noticed():
    with pytest.raises(click.NoSuchOption):
        parse(["convert", "demo", "-o", "x", "--latent-width", "8"])


LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.fixture(scope="module")
def made():
    """The pages that the site has beside those of ``docs/``."""
    return site_pages.pages()


def test_links_lead_to_pages(made):
    texts = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
    texts |= {path: text for path, (_, text) in made.items()}
    for path, text in texts.items():
        for target in LINK.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            if target.startswith(("http", "#")):
                continue
            page = posixpath.normpath(posixpath.join(posixpath.dirname(path), target.partition("#")[0]))
            assert page in texts or (DOCS / page).exists(), (path, target)


def test_every_public_name_is_in_the_reference():
    for module, text in reference.pages(MODULES).items():
        for name in reference.names_of(reference.source(module).read_text(encoding="utf-8")):
            found = reference.origin(module, name)
            assert f"::: {found.path}\n" in text or f"[`{name}`](" in text, (module, name)


def test_a_name_is_followed_to_its_definition():
    assert reference.origin("sd_mil", "MLModel").path == "sd_mil.predict.model.MLModel"
    assert reference.origin("sd_convert", "convert").path == "sd_convert.conversion.convert.convert"
    assert (
        reference.origin("sd_mil.engines", "AUTO").comment
        == "Core ML where it is, the portable engine elsewhere."
    )
    assert reference.origin("sd_runtime", "NO_RECIPE").path == "sd_runtime.recipes.NO_RECIPE"
    with pytest.raises(LookupError, match="no_such"):
        reference.origin("sd_mil", "no_such")


def test_sections_of_the_readme_are_pages(made):
    assert "--latent-h" in made["apple.md"][1]
    with pytest.raises(ValueError, match="expected a heading '## Nowhere'"):
        site_pages.section("# Title\n", "Nowhere")


def test_links_of_documents_lead_to_pages_or_to_the_repository():
    documents = {"a/X.md": ("x/x.md", "X"), "b/Y.md": ("y.md", "Y")}
    text = site_pages.relinked("[y](../b/Y.md#h) [z](z.py) [w](https://w)", "a/X.md", documents)
    assert text.startswith("[y](../y.md#h) [z](https://")
    assert text.endswith("/a/z.py) [w](https://w)")


def test_every_page_is_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [page for page in PAGES if f": {page.relative_to(DOCS).as_posix()}\n" not in menu] == []

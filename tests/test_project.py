"""What holds for the project as a whole."""

import ast
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("capture", "decoders", "recorder")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
LINES = 400
FUNCTION = 60
ORDER = {package: level for level, package in enumerate(PACKAGES)}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_a_module_is_one_thing_that_says_what_it_is(module):
    text = module.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module's docstring is its contract"
    assert len(text.splitlines()) <= LINES
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {node.name: _length(node) for node in functions if _length(node) > FUNCTION and not _declares(node)}
    assert not long


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _declares(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A command of the command line: its parameters are its text."""
    return node.name.endswith("_command")


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_imports_follow_the_data(module):
    own = ORDER[module.relative_to(ROOT).parts[0]]
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for imported in names:
                assert ORDER.get(imported.partition(".")[0], 0) <= own


def test_readme_and_architecture_name_only_files_that_exist():
    for document in (ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").glob("*.md")):
        text = document.read_text()
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
        for path in re.findall(r"`((?:capture|decoders|recorder|tests|bench|pcaps|docs)/[\w./-]*)`", text):
            assert (ROOT / path).exists(), f"{document.name}: {path}"


def test_every_dependency_is_imported_somewhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = "\n".join(path.read_text() for path in MODULES)
    for requirement in project["dependencies"]:
        package = re.split(r"[<>=!~\[ ]", requirement)[0]
        assert re.search(rf"(import|from|import_module\(\") *{package}\b", text), f"{package} is imported nowhere"


def test_the_documented_options_are_those_of_the_command():
    from typer.main import get_command

    from recorder.cli_app import app

    text = (ROOT / "docs" / "command-line.md").read_text()
    commands = [get_command(app)]
    for command in commands:
        commands += getattr(command, "commands", {}).values()
        for parameter in command.params:
            for option in parameter.opts if parameter.param_type_name == "option" else ():
                if option not in ("--help", "--install-completion", "--show-completion"):
                    assert f"`{option}" in text or f", {option}" in text, option


def test_the_example_of_a_document_fits_the_schema():
    from recorder.document import parse

    text = (ROOT / "docs" / "recording.md").read_text()
    (example,) = re.findall(r"```json\n(\{\n  \"schema\".*?\n\})\n```", text, re.DOTALL)
    assert parse(example.encode()).schema == json.loads(example)["schema"]


def test_the_makefile_has_the_commands_that_the_readme_promises():
    readme = (ROOT / "README.md").read_text()
    for target in sorted(set(re.findall(r"`?make (\w+)`?", readme))):
        subprocess.run(["make", "--dry-run", "--silent", target], cwd=ROOT, check=True, capture_output=True, timeout=60)

"""What holds for the project as a whole."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("capture", "decoders", "recorder")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def test_every_module_says_what_it_is():
    silent = [path for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))]
    assert not silent, "a module's docstring is its contract"


def test_readme_and_architecture_name_only_files_that_exist():
    for document in (ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").glob("*.md")):
        text = document.read_text()
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
        for path in re.findall(r"`((?:capture|decoders|recorder|tests|bench|pcaps|docs)/[\w./-]*)`", text):
            assert (ROOT / path).exists(), f"{document.name}: {path}"


def test_everything_imported_is_a_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = (re.split(r"[<>=!~\[ ]", requirement)[0] for requirement in project["dependencies"])
    declared = {name.lower().replace("-", "_") for name in names}
    # Parts of pydantic and numba, pinned by them; dnspython's own name.
    declared |= {"pydantic_core", "llvmlite", "dns", *PACKAGES, *sys.stdlib_module_names}
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                undeclared = {imported.partition(".")[0] for imported in names} - declared
                assert not undeclared, module


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

"""Rows of the checklist of recording sessions, the test that shows each, and what came of it: a table.

`python -m tests.siprec_checklist src` or `srs` runs the tests that the table of `test_checklist_src.py` (or `_srs`)
names, and prints it as Markdown. Ends with 1 where a test failed.
"""

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent / "recorder" / "siprec"
SECONDS = 1800


def main(arguments: list[str] | None = None) -> int:
    """Run the tests, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("side", choices=("src", "srs"))
    side = parser.parse_args(arguments).side
    checklist = _load(HERE / f"test_checklist_{side}.py")
    rows: dict[str, str] = checklist.ROWS
    shown = {row: test for row, test in rows.items() if not test.startswith("n/a: ")}
    results = _run({checklist.FILES[test.partition(":")[0]] for test in shown.values()})
    print("| row | test | result |\n| --- | --- | --- |")
    failed = False
    for row, test in rows.items():
        if row not in shown:
            print(f"| {row} | - | {test} |")
            continue
        file, _, name = test.partition(":")
        result = _result(results.get((checklist.FILES[file].stem, name), ["not run"]))
        failed |= result not in ("passed", "skipped")
        print(f"| {row} | {checklist.FILES[file].name}: {name} | {result} |")
    return int(failed)


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(files: set[Path]) -> dict[tuple[str, str], list[str]]:
    """(file, test) -> what came of it, for each set of its parameters."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", f"--junitxml={report}", *sorted(map(str, files))]
        subprocess.run(command, check=False, timeout=SECONDS, stdout=sys.stderr)
        for case in ET.parse(report).iter("testcase"):
            file = case.get("classname", "").rpartition(".")[2]
            bad = case.find("failure") is not None or case.find("error") is not None
            result = "failed" if bad else "skipped" if case.find("skipped") is not None else "passed"
            found[file, case.get("name", "").partition("[")[0]].append(result)
    return found


def _result(outcomes: list[str]) -> str:
    return next((each for each in ("failed", "not run", "passed") if each in outcomes), "skipped")


if __name__ == "__main__":
    sys.exit(main())

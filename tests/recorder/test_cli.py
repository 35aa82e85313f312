"""The command as a whole."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recorder import cli
from tests.calls import answered_call, fill


def spanrec(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from recorder.cli import main; main()", *arguments]
    variables = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, env=variables, check=False)


def test_the_version_is_told_without_heavy_imports():
    script = (
        "import sys; sys.argv[1:] = ['--version']\nfrom recorder.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'asyncio', 'av', 'lxml', 'numba', 'numpy', 'pydantic', 'rich', 'sqlalchemy', 'typer'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout.startswith("spanrec 0.")
    assert told.stdout.endswith("[]\n")


def test_the_version_is_told_at_once():
    """0.3 s on a machine of its own; three times that where others are busy. What makes it slow is an import, which
    the test above tells whatever the load."""
    fastest = min(_seconds("--version") for _ in range(5))
    assert fastest < 0.9


def _seconds(*arguments: str) -> float:
    begin = time.perf_counter()
    spanrec(*arguments)
    return time.perf_counter() - begin


def test_help_needs_no_packet_path():
    script = (
        "import sys; sys.argv[1:] = ['replay', '--help']\nfrom recorder.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'numpy', 'numba', 'lxml', 'sqlalchemy', 'av'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout.endswith("[]\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["replay"],
        ["replay", "x.pcap"],
        ["replay", "x.pcap", "-o", "y", "--workers", "-1"],
        ["replay", "x.pcap", "-o", "y", "--format", "aiff"],
        ["replay", "x.pcap", "-o", "y", "--address", "10.0.0.0/99"],
        ["replay", "x.pcap", "-o", "y", "--from", "yesterday"],
        ["replay", "x.pcap", "-o", "y", "--keylog", "keys"],
        ["calls", "list", "-o", "y", "--state", "happy"],
        ["no-such-command"],
        ["--no-such-option"],
    ],
)
def test_wrong_usage_is_status_2_and_leaves_stdout_empty(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPANREC_OUT", raising=False)
    told = spanrec(*arguments)
    assert (told.returncode, told.stdout) == (2, "")
    assert "Error" in told.stderr
    assert not list(tmp_path.iterdir())


def test_an_error_is_one_sentence_and_status_1(tmp_path):
    told = spanrec("calls", "list", "-o", str(tmp_path / "none"))
    assert told.returncode == 1
    assert told.stderr.startswith("spanrec: ")
    assert "there is no catalogue" in told.stderr
    assert "Traceback" not in told.stderr


def test_settings_of_the_directory_hold_and_options_come_first(tmp_path, monkeypatch):
    fill(tmp_path / "here", [answered_call()])
    fill(tmp_path / "there", [answered_call(1), answered_call(2)])
    (tmp_path / "spanrec.toml").write_text('out = "here"')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPANREC_OUT", raising=False)
    assert len(spanrec("calls", "list").stdout.splitlines()) == 2
    assert len(spanrec("calls", "list", SPANREC_OUT="there").stdout.splitlines()) == 3
    assert len(spanrec("calls", "list", "-o", "here", SPANREC_OUT="there").stdout.splitlines()) == 2
    (tmp_path / "spanrec.toml").write_text("colour = true")
    told = spanrec("calls", "list")
    assert (told.returncode, told.stdout) == (1, "")
    assert "spanrec.toml: unknown setting 'colour'" in told.stderr


def test_output_is_the_same_whatever_locale_and_time_zone(tmp_path):
    fill(tmp_path, [answered_call(0, "Zoë")])
    outputs = {
        spanrec("calls", "list", "-o", str(tmp_path), LC_ALL=locale, TZ=zone, PYTHONHASHSEED=seed).stdout
        for locale, zone, seed in (("C", "UTC", "0"), ("C.UTF-8", "Asia/Kolkata", "1"), ("POSIX", "UTC+7", "2"))
    }
    assert len(outputs) == 1
    assert "Zoë" in outputs.pop()


def test_a_reader_that_goes_away_is_no_crash(tmp_path):
    fill(tmp_path, [answered_call(index) for index in range(600)])
    command = f"{sys.executable} -c 'from recorder.cli import main; main()' calls list -o {tmp_path} | head -n 1"
    told = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in told.stderr


def test_an_interrupt_is_status_130(monkeypatch):
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["spanrec", "doctor"])
    monkeypatch.setattr(cli, "_run", interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130


def test_the_command_is_installed():
    assert (Path(sys.executable).parent / "spanrec").exists()

"""What an operator installs: the unit, the settings, the man page, the script that puts them in place."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from recorder import settings
from recorder.cli_app import app

ROOT = Path(__file__).parents[1]
PACKAGING = ROOT / "packaging"
MAN = ROOT / "docs" / "man" / "spanrec-capture.8"
MOST_EXPOSED = 20
"""Tenths, as systemd-analyze counts; what is left is that a recorder has the host's network and compiles."""
PYTHON = """#!/usr/bin/env bash
# Stands for an interpreter: makes what venv and pip would make.
case "$*" in
  *"-m venv "*) mkdir -p "${@: -1}/bin"; cp "$0" "${@: -1}/bin/python" ;;
  *"pip install"*) printf '#!/somewhere/else/python\\nprogram\\n' > "$(dirname "$0")/spanrec" ;;
esac
"""


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"needs {program}")


UNITS = ("spanrec-capture", "spanrec-src", "spanrec-srs")


@pytest.fixture(params=UNITS)
def unit(tmp_path, request) -> Path:
    """The unit, with a program that exists."""
    text = (PACKAGING / f"{request.param}.service").read_text()
    text = re.sub("@PREFIX@/[a-z/]*", "/bin/true", text)
    text = re.sub(r"^Documentation=.*\n", "", text, flags=re.MULTILINE)
    path = tmp_path / f"{request.param}.service"
    path.write_text(text)
    return path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *arguments, "--no-pager"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@needs("systemd-analyze")
def test_systemd_has_nothing_to_say_about_the_unit(unit):
    done = analyze("verify", "--man=no", str(unit))
    assert (done.returncode, done.stderr) == (0, "")


@needs("systemd-analyze")
def test_the_unit_exposes_little(unit):
    done = analyze("security", "--offline=yes", f"--threshold={MOST_EXPOSED}", str(unit))
    assert done.returncode == 0, done.stdout[-200:]


@pytest.mark.parametrize("name", UNITS)
def test_the_unit_lets_the_recorder_do_what_it_does(name):
    text = (PACKAGING / f"{name}.service").read_text()
    assert "Type=notify" in text
    assert "MemoryDenyWriteExecute=" not in text, "kernels are compiled and loaded"
    families = re.findall("^RestrictAddressFamilies=(.*)", text, re.MULTILINE)[0].split()
    packets = set() if name == "spanrec-srs" else {"AF_PACKET"}
    assert set(families) == {*packets, "AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"}
    assert ("AmbientCapabilities=CAP_NET_RAW" in text) is bool(packets)
    last = re.findall("^SystemCallFilter=(.*)", text, re.MULTILINE)[-1]
    assert last.split() == ["capset", "seccomp"], "what comes later is allowed again"


def test_the_shipped_settings_can_be_used_as_they_are_and_with_every_example(tmp_path):
    text = (PACKAGING / "spanrec.toml").read_text()
    assert settings.read(PACKAGING / "spanrec.toml") == {"out": "/var/lib/spanrec/calls"}
    examples = tmp_path / "spanrec.toml"
    examples.write_text(re.sub(r"^#: ?", "", text, flags=re.MULTILINE))
    assert set(settings.read(examples)) == {"out", *settings.TABLES}


def test_the_man_page_has_the_options_of_the_command():
    command = get_command(app).commands["capture"]
    text = MAN.read_text()
    told = {"-" + name for name in re.findall(r"Fl (-?[a-z][a-z-]*)", text)}
    there = {option for p in command.params for option in (*p.opts, *p.secondary_opts) if option.startswith("-")}
    assert told - {"-u", "-p"} == there - {"--help"}


@needs("mandoc")
def test_the_man_page_is_well_formed():
    done = subprocess.run(["mandoc", "-T", "lint", MAN], capture_output=True, text=True, timeout=60, check=False)
    assert [line for line in done.stdout.splitlines() if "referenced manual not found" not in line] == []


def install(tmp_path: Path, **environment: str) -> str:
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    variables = {
        **os.environ,
        "PYTHON": str(python),
        "DESTDIR": str(tmp_path / "root"),
        "PREFIX": "/opt/it",
        **environment,
    }
    script = [PACKAGING / "install"]
    return subprocess.run(script, env=variables, capture_output=True, text=True, timeout=60, check=True).stdout


def test_all_is_put_where_it_belongs(tmp_path):
    told = install(tmp_path)
    root = tmp_path / "root"
    assert "systemd-sysusers && systemd-tmpfiles --create" in told
    placed = {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}
    assert placed == {
        *(f"etc/default/{name}" for name in UNITS),
        "etc/spanrec/spanrec.toml",
        "etc/sysusers.d/spanrec.conf",
        "etc/tmpfiles.d/spanrec.conf",
        "opt/it/bin/spanrec",
        "opt/it/lib/spanrec/bin/python",
        "opt/it/lib/spanrec/bin/spanrec",
        *(f"opt/it/lib/systemd/system/{name}.service" for name in UNITS),
        "opt/it/share/man/man8/spanrec-capture.8",
    }
    assert (
        "ExecStart=/opt/it/bin/spanrec capture"
        in (root / "opt/it/lib/systemd/system/spanrec-capture.service").read_text()
    )
    assert (root / "opt/it/bin/spanrec").resolve() == root / "opt/it/lib/spanrec/bin/spanrec"
    assert (root / "opt/it/bin/spanrec").read_text() == "#!/opt/it/lib/spanrec/bin/python\nprogram\n"


def test_an_upgrade_keeps_the_settings_and_shows_the_new_ones(tmp_path):
    install(tmp_path)
    kept = tmp_path / "root" / "etc" / "spanrec" / "spanrec.toml"
    kept.write_text("# mine\n")
    told = install(tmp_path)
    assert kept.read_text() == "# mine\n"
    assert kept.with_suffix(".toml.new").read_bytes() == (PACKAGING / "spanrec.toml").read_bytes()
    assert "/etc/spanrec/spanrec.toml is kept" in told
    assert not (tmp_path / "root" / "etc" / "default" / "spanrec-capture.new").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make users and directories of others")
@needs("systemd-sysusers")
@needs("systemd-tmpfiles")
def test_the_user_and_its_directories_are_made(tmp_path):
    install(tmp_path)
    root = tmp_path / "root"
    for program, configuration in (
        (["systemd-sysusers"], "etc/sysusers.d/spanrec.conf"),
        (["systemd-tmpfiles", "--create"], "etc/tmpfiles.d/spanrec.conf"),
    ):
        subprocess.run(
            [*program, f"--root={root}", str(root / configuration)], check=True, capture_output=True, timeout=60
        )
    name, _, uid, gid, _, home, shell = (root / "etc/passwd").read_text().splitlines()[-1].split(":")
    assert (name, home, shell) == ("spanrec", "/var/lib/spanrec", "/usr/sbin/nologin")
    for directory, owner in (("var/lib/spanrec/calls", int(uid)), ("var/cache/spanrec", int(uid)), ("etc/spanrec", 0)):
        status = (root / directory).stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (owner, int(gid), 0o750)
    settings_file = (root / "etc/spanrec/spanrec.toml").stat()
    assert (settings_file.st_gid, settings_file.st_mode & 0o777) == (int(gid), 0o640)

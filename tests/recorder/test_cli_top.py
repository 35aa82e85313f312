"""The command `spanrec top`, without its live view."""

import json
import os
import pty
import subprocess
import sys

import pytest

from recorder.cli_app import app
from recorder.status import StatusError
from recorder.status_address import TcpAddress
from tests.live_status import ALARM, Pretender, serving

TOKEN = "correct-horse-battery"


@pytest.fixture
def top(capsys):
    """Runs `spanrec top`; gives status and stdout."""

    def run(*arguments: str):
        with pytest.raises(SystemExit) as ended:
            app(["top", *arguments])
        return ended.value.code, capsys.readouterr().out

    return run


def test_once_prints_all_columns_as_text(top, tmp_path):
    with serving(tmp_path / "s", Pretender(3, (ALARM,))) as path:
        status, out = top("--connect", str(path), "--once")
    lines = out.splitlines()
    assert status == 0
    assert lines[0].startswith("spanrec 0.1.0 on eth1")
    assert lines[3] == "! kernel-drops since 09:14:11: 123 packets were dropped on eth1: make the ring larger"
    assert lines[5].split()[:2] == ["started", "from"]
    assert [line.split()[1:3] for line in lines[6:]] == [
        ["+49301015838", "202"],
        ["+49301007919", "201"],
        ["+49301000000", "200"],
    ]
    assert lines[-1].endswith("0000-a84b4c76e66710@192.0.2.0")


def test_where_stdout_is_no_terminal_it_prints_once(top, tmp_path):
    with serving(tmp_path / "s", Pretender(0)) as path:
        status, out = top("--connect", str(path))
    assert (status, "0 calls" in out) == (0, True)


def test_json_is_one_object(top, tmp_path):
    with serving(tmp_path / "s", Pretender(3)) as path:
        status, out = top("--connect", str(path), "--json")
    told = json.loads(out)
    assert (status, sorted(told), len(told["calls"])) == (0, ["calls", "status"], 3)
    assert told["status"]["sources"][0]["name"] == "eth1"


def test_over_tcp_it_brings_the_token(top, tmp_path):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    with serving(TcpAddress("127.0.0.1", 0), Pretender(2), TOKEN) as address:
        status, out = top("--connect", f"localhost:{address.port}", "--token-file", str(token), "--once")
        assert (status, "2 calls" in out) == (0, True)
        with pytest.raises(StatusError, match="token"):
            app(["top", "--connect", str(address), "--once"])


def test_no_service_is_one_sentence_and_status_1(tmp_path):
    command = [sys.executable, "-c", "from recorder.cli import main; main()", "top", "--once"]
    variables = {**os.environ, "SPANREC_CONNECT": str(tmp_path / "none")}
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, env=variables, check=False)
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr == f"spanrec: {tmp_path}/none: no spanrec serves its status here; is the service running?\n"


@pytest.mark.parametrize("arguments", [["--interval", "0"], ["--interval", "soon"], ["more"]])
def test_wrong_usage_is_status_2(top, arguments):
    assert top(*arguments)[0] == 2


def test_an_address_that_is_none_is_said_to_be_none():
    with pytest.raises(StatusError, match="is no address"):
        app(["top", "--connect", "nowhere"])


def test_nothing_of_textual_is_imported_for_help_or_once(tmp_path):
    script = (
        "import sys\nfrom recorder.cli_app import app\n"
        "try: app(['top', *sys.argv[1:]])\nexcept SystemExit: pass\n"
        "print(sorted({'textual', 'numpy', 'numba', 'prometheus_client'} & set(sys.modules)))"
    )
    told = subprocess.run(
        [sys.executable, "-c", script, "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    assert told.stdout.endswith("[]\n")
    with serving(tmp_path / "s", Pretender(1)) as path:
        command = [sys.executable, "-c", script, "--once", "--connect", str(path)]
        told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout.endswith("[]\n")


def test_on_a_terminal_it_is_live_and_q_leaves(tmp_path):
    """The real program on a real pseudo-terminal."""
    with serving(tmp_path / "s", Pretender(5)) as path:
        child, terminal = pty.fork()
        if child == 0:
            os.environ.update(TERM="xterm", LINES="24", COLUMNS="80", SPANREC_CONNECT=str(path))
            os.execv(sys.executable, [sys.executable, "-c", "from recorder.cli import main; main()", "top"])
        seen = b""
        try:
            while b"+49301" not in seen:
                seen += os.read(terminal, 65536)
            os.write(terminal, b"q")
            while os.read(terminal, 65536):
                pass
        except OSError:  # the other side is closed
            pass
        _, status = os.waitpid(child, 0)
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0
    assert b"5 calls" in seen

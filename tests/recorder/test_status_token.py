"""The token's file."""

import pytest

from recorder.status import StatusError
from recorder.status_token import read_token

TOKEN = "correct-horse-battery"


def test_a_token_is_a_line_in_a_file_that_not_everybody_reads(tmp_path):
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o640)
    assert read_token(path) == TOKEN
    path.chmod(0o644)
    with pytest.raises(StatusError, match="every user can read"):
        read_token(path)
    path.chmod(0o600)
    for content in ("short", "two lines of\ncharacters", ""):
        path.write_text(content)
        with pytest.raises(StatusError, match="at least 16"):
            read_token(path)
    path.write_bytes(b"\xff" * 20)
    with pytest.raises(StatusError, match="ASCII"):
        read_token(path)
    with pytest.raises(StatusError, match="No such file"):
        read_token(tmp_path / "none")

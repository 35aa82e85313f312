"""What settings say of the spool of our client."""

from pathlib import Path

import pytest

from capture.errors import SpanrecError
from recorder.call_facts import CallFacts, Heard
from recorder.cli_src import Rules
from recorder.siprec.spool import AT_ONCE
from recorder.siprec.src_decision import Server
from recorder.siprec.src_settings import load_src


@pytest.mark.parametrize(("src", "at_once"), [({}, AT_ONCE), ({"spool_at_once": 1}, 1), ({"spool_at_once": 100}, 100)])
def test_how_many_calls_are_delivered_at_once_is_set(src, at_once):
    assert load_src({"src": src}, Path("spanrec.toml")).spool.at_once == at_once


@pytest.mark.parametrize("value", [0, 101, -1, True, 1.5, "8"])
def test_a_number_of_deliveries_that_cannot_be_is_refused_with_its_place(value):
    with pytest.raises(SpanrecError, match=r"spanrec\.toml.*\[src\]: spool_at_once"):
        load_src({"src": {"spool_at_once": value}}, Path("spanrec.toml"))


def named(directory: Path, password: str, uri: str = "sip:one.example") -> None:
    """A settings file with a server whose password stands in a file."""
    server = f'[[server]]\nname = "one"\nuri = "{uri}"\nuser = "client"\npassword_file = "{password}"\n'
    (directory / "spanrec.toml").write_text(f'[src]\nsrs = "one"\n{server}')


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPANREC_CONFIG", raising=False)
    password = tmp_path / "password"
    password.write_text("hidden")
    password.chmod(0o600)
    named(tmp_path, "password")
    return tmp_path


def server_of(rules: Rules) -> Server:
    facts = CallFacts(callers=(Heard("sip:a@a.example"),), callees=(Heard("sip:b@b.example"),))
    return rules.decide(facts).instances[0].servers[0]


class Log:
    """What is logged."""

    def __init__(self) -> None:
        self.logger = self
        self.told: list[str] = []

    def warning(self, event: str, text: str) -> None:
        assert event == "settings-refused"
        self.told.append(text)


def test_rules_are_taken_again_with_passwords_that_can_be_read_no_more(directory):
    rules, log = Rules(None), Log()
    (directory / "password").unlink()
    named(directory, "password", "sip:two.example")
    rules.reload(log)
    assert log.told == []
    server = server_of(rules)
    assert (server.uri, server.credentials.password) == ("sip:two.example", "hidden")


def test_rules_with_a_password_that_cannot_be_read_are_told_of_and_the_old_ones_stay(directory):
    rules, log = Rules(None), Log()
    named(directory, "another", "sip:two.example")
    rules.reload(log)
    assert len(log.told) == 1
    assert "another: cannot read the password" in log.told[0]
    assert server_of(rules).uri == "sip:one.example"


def test_rules_that_a_server_of_the_command_line_does_not_fit_are_told_of_likewise(directory):
    rules, log = Rules("one"), Log()
    (directory / "spanrec.toml").write_text("[src]\n")
    rules.reload(log)
    assert len(log.told) == 1
    assert server_of(rules).uri == "sip:one.example"

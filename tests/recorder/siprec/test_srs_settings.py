"""Settings of our recording server, and what it shares with the client."""

import tomllib
from pathlib import Path

import pytest

from decoders.sip import parse_message
from recorder.settings import SettingsError, read
from recorder.sip_ua.api import Reply
from recorder.siprec.control import EventKind
from recorder.siprec.src_settings import load_src
from recorder.siprec.srs_files import read_files
from recorder.siprec.srs_message import Strictness
from recorder.siprec.srs_settings import load_srs
from tests.srs_lab import peer

PATH = Path("/etc/spanrec.toml")
EVERYTHING = """
[srs]
listen = ["udp:0.0.0.0:5060", "tls:[::]:5061"]
media_address = "192.0.2.1"
announce = { "10.0.0.1" = "192.0.2.1" }
ports = "20000-20999"
tls_certificate = "/etc/c.pem"
tls_key = "/etc/k.pem"
tls_authorities = "/etc/ca.pem"
tls_require_client = true
allow = ["192.0.2.0/24", { network = "2001:db8::/32", certificate = "DNS:*.sbc.example", user = "src" }]
users_file = "/etc/users"
realm = "recorder"
digest = ["MD5"]
max_sessions = 10
max_sessions_of_one = 5
max_streams_of_one = 8
rate = 1.5
burst = 3
max_body = 65536
retry_after = 30
strictness = "strict"
silence = 30
snapshot_after = 2
drain = 10
session_expires = 0
control = ""
token_file = "/etc/token"
socket = "/run/x.sock"
[[srs.webhook]]
url = "https://example.com/hook"
secret_file = "/etc/hook"
events = ["start", "stop"]
timeout = 2
"""


def test_everything_is_taken():
    found = load_srs(tomllib.loads(EVERYTHING), PATH)
    assert [str(each) for each in found.listen] == ["udp:0.0.0.0:5060", "tls:[::]:5061"]
    assert (found.ports.low, found.ports.high) == (20000, 20999)
    assert found.tls.require_client
    assert found.digest == ("MD5",)
    assert found.rules.allowed[1].certificate == "DNS:*.sbc.example"
    assert (found.rules.rate, found.rules.largest_body, found.rules.streams_of_one) == (1.5, 65536, 8)
    assert (found.strictness, found.session_expires) == (Strictness.STRICT, None)
    assert (found.control.listen, found.control.socket) == ("", Path("/run/x.sock"))
    assert found.webhooks[0].events == {EventKind.START, EventKind.STOP}


@pytest.mark.parametrize(("ports", "most"), [("40000-49999", 4000), ("42000-42119", 48), ("42000-42001", 1)])
def test_one_client_gets_four_fifths_of_the_ports_where_nothing_is_said(ports, most):
    assert load_srs({"srs": {"ports": ports}}, PATH).rules.streams_of_one == most
    assert load_srs({}, PATH).rules.streams_of_one == 4000


def test_the_challenge_offers_what_the_settings_say(tmp_path):
    users = tmp_path / "users"
    users.write_text("alice:secret\n")
    users.chmod(0o600)
    ask = read_files(load_srs({"srs": {"users_file": str(users), "digest": ["MD5", "SHA-256"]}}, PATH)).challenge
    assert ask is not None
    invite = parse_message(b"INVITE sip:srs@192.0.2.1 SIP/2.0\r\nCall-ID: 1\r\nContent-Length: 0\r\n\r\n")
    assert invite is not None
    reply = ask(invite, peer())
    assert isinstance(reply, Reply)
    assert [value.rpartition("algorithm=")[2] for _, value in reply.headers] == ["MD5", "SHA-256"]


@pytest.mark.parametrize("wrong", [[], ["SHA-1"], ["MD5", "MD5"], [1]])
def test_algorithms_that_cannot_be_offered_are_refused(wrong):
    with pytest.raises(SettingsError, match="digest"):
        load_srs({"srs": {"digest": wrong}}, PATH)


def test_services_of_one_machine_are_not_in_each_others_way():
    addresses = {load_srs({}, PATH).control.listen, load_src({}, PATH).control.listen, "127.0.0.1:9180"}
    assert len(addresses) == 3
    assert load_srs({}, PATH).ports.low > load_src({}, PATH).ports.high


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[srs]\nlisten = 'sctp:1.2.3.4'", "[srs]: listen: 'sctp:1.2.3.4': is no address"),
        ("[srs]\nports = '1-9'", "[srs]: ports: '1-9' is no range"),
        ("[srs]\nallow = ['example.com']", "[srs]: allow: 'example.com' is no address and no network"),
        ("[srs]\nallow = [{}]", "[srs]: allow: an empty table would let everybody in"),
        ("[srs]\nallow = [{ certificate = 'sbc' }]", "[srs]: allow: 'sbc' is no name of a certificate"),
        ("[srs]\nrate = 0", "[srs]: rate: must be requests a second"),
        ("[srs]\nstrictness = 'very'", "[srs]: strictness: 'very' is none of strict, lenient, anything"),
        ("[srs]\ntls_key = 'k'", "[srs]: tls_key: needs tls_certificate"),
        ("[srs]\npassword = 'x'", "[srs]: unknown setting 'password'"),
        ("srs = 3", "[srs]: must be a table"),
        ("[[srs.webhook]]\nurl = 'ftp://x'", "srs.webhook 1: url: 'ftp://x' is no http or https URL"),
        ("[[src.webhook]]\nurl = 'http://u:p@x'", "src.webhook 1: url: has a user or password in it"),
        ("[[src.webhook]]\nurl = 'http://x'\nevents = ['end']", "src.webhook 1: events: 'end' is none of"),
        ("[src]\nsession_expires = 5", "[src]: session_expires: must be a whole number from 90"),
        ("[src]\nspool_size = 'big'", "[src]: spool_size: 'big' is no amount"),
        ("[src]\nidentity = 'me'", "[src]: identity: 'me' is no SIP URI"),
        ("[src]\nsockets = 1", "[src]: sockets: must be a table"),
        ("[[server]]\nname = 'a'\nuri = 'tel:1'", "server 1: uri: 'tel:1' is no SIP URI"),
        ("[[server]]\nname = 'a'\nuri = 'sip:a'\nweight = 0", "server 1: weight: must be a whole number"),
        ("[[server]]\nname = 'a'\nuri = 'sip:a'\nuser = 'u'", "server 1: password_file: must be a string"),
        ("[src.sets]\na = 'b'", "[src.sets]: a: 'b' is no server"),
    ],
)
def test_what_is_wrong_names_file_table_and_key(tmp_path, text, said):
    path = tmp_path / "spanrec.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as told:
        read(path)
    assert str(told.value).startswith(f"{path}: {said}")

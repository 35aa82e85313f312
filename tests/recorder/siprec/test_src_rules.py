"""What rules say of recording servers, and what settings of our SRC are."""

import re
import tomllib
from pathlib import Path
from uuid import UUID

import pytest

from recorder.call_facts import CallFacts, Heard
from recorder.model import Side
from recorder.policy import Action
from recorder.policy_file import SENDING, load_policy
from recorder.settings import SettingsError, read
from recorder.siprec import src_rules, src_settings
from recorder.siprec.sip_settings import Secrets
from recorder.siprec.snapshot import why_no_extension
from recorder.siprec.src_decision import Choice, OnHold, Protection
from recorder.siprec.src_rules import SrcRules, load_rules
from recorder.siprec.src_settings import load_src

PATH = Path("/etc/spanrec.toml")
USUAL = """
[src]
srs = "sip:rec1.example;transport=tcp, backup"
[[server]]
name = "backup"
uri = "sips:rec2.example"
weight = 3
[src.sets]
bank = ["sip:bank1.example", "backup"]
[src.sockets]
inside = "tls:10.0.0.1:5061"
"""


def load(text: str) -> SrcRules:
    settings = tomllib.loads(text)
    return load_rules(settings, PATH, load_src(settings, PATH, secrets=Secrets()))


def call(caller: str = "sip:+4930111@example.com", name: str | None = None, **headers: str) -> CallFacts:
    fields = {key.lower().replace("_", "-"): [value] for key, value in headers.items()}
    return CallFacts(
        call_id="x",
        callers=(Heard(caller, name),),
        callees=(Heard("sip:bob@example.com"),),
        header=lambda field: fields.get(field.lower(), []),
    )


def uris(decision) -> list[list[str]]:
    return [[server.uri for server in instance.servers] for instance in decision.instances]


def test_without_rules_every_call_goes_to_the_servers_of_src():
    decision = load(USUAL).decide(call())
    assert decision.record
    assert uris(decision) == [["sip:rec1.example;transport=tcp", "sips:rec2.example"]]


def test_the_rule_that_decides_about_recording_decides_about_servers():
    rules = load(
        USUAL
        + """
[policy]
default = "metadata"
[[rule]]
caller = "+4930*"
action = "skip"
[[rule]]
caller = "bank*"
action = "record"
srs = "bank"
[[rule]]
caller = "a"
siprec = true
[[rule]]
caller = "b"
action = "record"
siprec = false
"""
    )
    assert not rules.decide(call()).record, "what is not recorded here goes nowhere"
    assert uris(rules.decide(call("sip:bank-7@example.com"))) == [["sip:bank1.example", "sips:rec2.example"]]
    assert rules.decide(call("sip:a@example.com")).record, "unless a rule says that it does"
    assert not rules.decide(call("sip:b@example.com")).record
    assert not rules.decide(call("sip:c@example.com")).record, "the default of the policy holds here too"
    with_default = USUAL.replace("[src]\n", "[src]\ndefault = true\n") + "[policy]\ndefault = 'metadata'"
    assert load(with_default).decide(call()).record


EVERYTHING = """
[[rule]]
name = "cards"
action = "record"
srs = "bank, sip:z.example"
choice = "weight"
media = "savp"
no_failover = "4..|603"
persistent = true
kinds = ["audio", "video"]
media_address = "192.0.2.7"
local = "inside"
pause_on_hold = true
on_bye = "end"
insecure = "warn"
spool = false
timeout = 2
answer_timeout = 9.5
session_expires = 0
caller_as = { name = "{header:X-Agent}", aor = "sip:{header:X-Agent}@agents.example" }
callee_as = { name = "Customer" }
group = "{header:X-Group}"
group_extension = '<t xmlns="urn:acme" id="{header:X-Tenant}">{caller}</t>'
session_extension = '<q xmlns="urn:acme"/>'
from = '"SRC" <sip:{header:X-Agent}@src.example>'
to = "sip:{callee}@rec.example"
add_headers = { X-Tenant = "{header:X-Tenant}", X-Fixed = "yes" }
pause_digits = "*1"
resume_digits = "*2"
pause_by = "callee"
"""


def test_everything_that_a_rule_can_say_is_taken():
    decision = load(USUAL + EVERYTHING).decide(call(X_Agent='Jo "<b>"', X_Tenant='"&<acme>', X_Group="deal 7"))
    (instance,) = decision.instances
    assert instance.name == "rule 1 (cards)"
    assert [server.uri for server in instance.servers] == ["sip:bank1.example", "sips:rec2.example", "sip:z.example"]
    assert {server.protection for server in instance.servers} == {Protection.SAVP}
    assert (instance.choice, instance.persistent, instance.media) == (Choice.WEIGHT, True, ("audio", "video"))
    assert instance.final is not None
    assert [bool(instance.final.fullmatch(code)) for code in ("486", "603", "503")] == [True, True, False]
    assert (instance.media_host, instance.agent, instance.on_hold) == ("192.0.2.7", "inside", OnHold.PAUSE)
    assert (instance.timeout, instance.answer_timeout, instance.session_expires) == (2, 9.5, None)
    overrides = instance.overrides
    assert (overrides.caller_name, overrides.callee_name) == ('Jo "<b>"', "Customer")
    assert overrides.from_ == '"SRC" <sip:Jo%20%22%3Cb%3E%22@src.example>'
    assert overrides.to == "<sip:bob@rec.example>"
    assert why_no_extension(overrides.group_extension) == ""
    assert "&quot;&amp;&lt;acme&gt;" in overrides.group_extension
    assert overrides.group == src_rules.group_of("deal 7")
    assert list(instance.headers) == [("X-Tenant", '"&<acme>'), ("X-Fixed", "yes")]
    assert decision.pausing.by == frozenset({Side.CALLEE})
    assert (decision.pausing.pause_digits, decision.pausing.resume_digits) == ("*1", "*2")


def test_what_the_wire_brings_ends_no_line_and_leaves_no_empty_header():
    found = load(USUAL + EVERYTHING).decide(call(X_Agent="a\r\nVia: x", X_Tenant="")).instances[0]
    assert [name for name, _ in found.headers] == ["X-Fixed"]
    assert found.overrides.caller_name == "a  Via: x"
    assert "\r" not in found.overrides.from_
    assert found.overrides.group is None


def test_a_group_may_be_a_uuid():
    rule = "[[rule]]\naction = 'record'\ngroup = '{header:G}'"
    uuid = "8f2d1e3a-0000-4000-8000-000000000007"
    assert load(USUAL + rule).decide(call(G=uuid)).instances[0].overrides.group == UUID(uuid)


def test_instances_are_sessions_apart():
    rules = load(
        USUAL
        + """
[[rule]]
action = "record"
persistent = true
callee_as = { name = "Customer" }
instances = [{ name = "a", srs = "bank" }, { name = "b", persistent = false, callee_as = { name = "C" } }]
"""
    )
    first, second = rules.decide(call()).instances
    assert (first.name, first.persistent, first.overrides.callee_name) == ("a", True, "Customer")
    assert (second.name, second.persistent, second.overrides.callee_name) == ("b", False, "C")
    assert [server.uri for server in second.servers] == ["sip:rec1.example;transport=tcp", "sips:rec2.example"]


def test_what_is_of_no_call_is_made_once():
    rules = load(USUAL + "[[rule]]\naction = 'record'\nadd_headers = { X-Y = 'z' }")
    assert rules.decide(call()) is rules.decide(call("sip:other@example.com"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("action = 'record'\nsrs = 'nobody'", "rule 1: srs: 'nobody' is no server"),
        ("action = 'record'\nsrs = 'http://x'", "rule 1: srs: 'http://x' is no SIP URI"),
        ("action = 'record'\nsrs = []", "rule 1: srs: names no server"),
        ("action = 'record'\nmedia = 'zrtp'", "rule 1: media: 'zrtp' is none of avp, savp, same"),
        ("action = 'record'\nno_failover = '(a+)+'", "rule 1: no_failover: /(a+)+/: a group that is repeated"),
        ("action = 'record'\nlocal = 'outside'", "rule 1: local: 'outside' is none of [src.sockets]: inside"),
        ("action = 'record'\nmedia_address = 'host'", "rule 1: media_address: 'host' is no IP address"),
        ("action = 'record'\ncaller_as = { nom = 'x' }", "rule 1: caller_as: unknown setting 'nom'"),
        ("action = 'record'\ngroup = '{user}'", "rule 1: group: {user} is none of"),
        ("action = 'record'\nsession_extension = '<a>'", "rule 1: session_extension: cannot stand in the metadata"),
        ("action = 'record'\nsession_extension = '<a/>'", "has no namespace of its own"),
        ("action = 'record'\nfrom = 'x'", "rule 1: from: 'x' is no SIP"),
        ("action = 'record'\nadd_headers = { Via = 'x' }", "rule 1: add_headers: 'Via' is no header field"),
        ("action = 'record'\nadd_headers = { X-Y = \"a\\r\\nb\" }", "rule 1: add_headers: X-Y: has line breaks"),
        ("action = 'record'\npause_digits = 'x'", "rule 1: pause_digits: 'X' is no code"),
        ("action = 'record'\nresume_digits = '1'", "says nothing without pause_digits"),
        ("action = 'record'\npause_digits = '1'\npause_by = 'agent'", "rule 1: pause_by: 'agent' is none of"),
        ("action = 'skip'\nsrs = 'bank'", "rule 1: srs: has no effect on calls that go to no server"),
        ("action = 'record'\ninstances = [{}]", "rule 1: instance 1: name: must be a string"),
        ("action = 'record'\ninstances = [{name='a'}, {name='a'}]", "instance 2: name: 'a' has been given"),
        ("siprec = 1", "rule 1: siprec: must be true or false"),
        ("caller = 'a'", "rule 1: action: is missing"),
    ],
)
def test_what_is_wrong_names_file_rule_and_key(tmp_path, text, said):
    path = tmp_path / "spanrec.toml"
    path.write_text(f"{USUAL}\n[[rule]]\n{text}\n")
    with pytest.raises(SettingsError) as told:
        read(path)
    assert str(told.value).startswith(f"{path}: ")
    assert said in str(told.value)


def test_capture_reads_such_a_file_as_before():
    settings = tomllib.loads(USUAL + EVERYTHING)
    assert [rule.decision.action for rule in load_policy(settings, PATH).rules] == [Action.RECORD]


def test_the_keys_that_capture_lets_pass_are_those_that_are_read():
    read_here = {"siprec", "instances", "srs", "media", *src_settings.INSTANCE, *src_rules.OVERRIDING}
    assert {*SENDING} == read_here | {*src_rules.PAUSING}


def test_passwords_are_read_only_for_who_needs_them(tmp_path):
    secret = tmp_path / "password"
    text = f"[[server]]\nname = 'a'\nuri = 'sip:a'\nuser = 'u'\npassword_file = '{secret}'\n[src]\nsrs = 'a'"
    settings = tomllib.loads(text)
    assert load_src(settings, PATH).usual.servers[0].uri == "sip:a"
    with pytest.raises(SettingsError, match=r"server 1: password_file: .*cannot read the password"):
        load_src(settings, PATH, secrets=Secrets())
    secret.write_text("hush\n")
    secret.chmod(0o644)
    with pytest.raises(SettingsError, match="every user can read"):
        load_src(settings, PATH, secrets=Secrets())
    secret.chmod(0o600)
    found = load_src(settings, PATH, secrets=Secrets())
    credentials = found.usual.servers[0].credentials
    assert credentials is not None
    assert credentials.password == "hush"
    assert re.search("hush", repr(found)) is None


def test_a_comma_within_a_uri_parts_nothing():
    found = load("[src]\nsrs = 'sip:a,b@rec.example, sip:c@rec.example'").decide(call())
    assert uris(found) == [["sip:a,b@rec.example", "sip:c@rec.example"]]

"""The recording policy in the settings."""

import re
import tomllib
from pathlib import Path

import pytest

from recorder.call_facts import CallFacts, Heard
from recorder.policy import Action, Policy
from recorder.policy_file import _CONDITIONS, _DOING, _POLICY, load_policy
from recorder.retention_rules import _TERMS, load_retention
from recorder.settings import SettingsError, read
from tests.calls import START, endpoint

PATH = Path("/etc/spanrec.toml")
EVERYTHING = """
[policy]
default = "metadata"
local = ["10.0.0.0/8", "2001:db8::/32", "example.com", "1und1.de"]

[[rule]]
name = "not ours"
direction = "transit"
action = "skip"

[[rule]]
name = "sales"
caller = ["+4930*", "/^sip:sales-/"]
callee = "*@example.com"
number = "*"
caller_name = "*"
header = { "X-Tenant" = "acme*", "s" = ["urgent", "*sale*"] }
address = ["192.0.2.0/24"]
direction = ["inbound", "internal"]
vlan = [0, 100, "10.200"]
hours = ["Mo-Fr 08:00-18:00 Europe/Berlin", "Sa-Su Europe/Berlin"]
percent = 100
media_only = false
action = "record"
keep_packets = true
tags = ["sales", "berlin"]

[[rule]]
vxlan = "5000.7"
percent = 12.5
media_only = true
action = "skip"
"""


def load(text: str) -> Policy:
    return load_policy(tomllib.loads(text), PATH)


def test_everything_that_a_rule_can_say_is_taken():
    found = load(EVERYTHING)
    headers = {"X-Tenant": ["acme-1"], "s": ["big sale"]}
    call = CallFacts(
        call_id="x",
        started=START,
        callers=(Heard("tel:+4930111", "Zoe"),),
        callees=(Heard("sip:bob@example.com"),),
        header=lambda name: headers[name],
        source=endpoint("192.0.2.9", 5060),
        destination=endpoint("10.0.0.1", 5060),
    )
    decided = found.decide(call)
    assert (decided.action, decided.keep_packets, decided.tags) == (Action.RECORD, True, ("berlin", "sales"))
    assert decided.rule == "rule 2 (sales)"
    headers["s"] = ["nothing"]
    assert found.decide(call).action is Action.METADATA


def test_nothing_said_is_record_everything():
    assert load("") == Policy()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[policy]\ndefualt = 'skip'", r"spanrec\.toml: \[policy\]: unknown setting 'defualt'; known are default"),
        ("[policy]\ndefault = 'forget'", r"\[policy\]: default: 'forget' is none of record, metadata, skip"),
        ("[policy]\nlocal = ['10.0.0.0/99']", r"\[policy\]: local: '10.0.0.0/99' is no address and no network"),
        ("[policy]\nlocal = 7", r"local: must be a string or a list of strings, not 7"),
        ("policy = 7", r"\[policy\]: must be a table"),
        ("rule = 7", r"spanrec\.toml: rule must be tables: write \[\[rule\]\]"),
        ("[rule]\naction = 'skip'", r"rule must be tables: write \[\[rule\]\]"),
        ("[[rule]]\naction='skip'\n[[rule]]\nname='a'\ncolour='red'\naction='skip'", r"rule 2 \(a\): unknown setting"),
        ("[[rule]]\nnumber = '1'", "rule 1: action: is missing; write record, metadata or skip"),
        ("[[rule]]\naction = 'Record'", "rule 1: action: 'Record' is none of"),
        ("[[rule]]\naction = 7", "rule 1: action: 7 is none of"),
        ("[[rule]]\nname = ''\naction = 'skip'", "name: '' is no name"),
        ("[[rule]]\nname = 7\naction = 'skip'", "name: 7 is no name"),
        ("[[rule]]\ncaller = ''\naction = 'skip'", "caller: an empty pattern"),
        ("[[rule]]\ncaller = []\naction = 'skip'", "caller: is an empty list"),
        ("[[rule]]\ncallee = ['a', 7]\naction = 'skip'", "callee: must be a string or a list of strings"),
        ("[[rule]]\nnumber = '/(a+)+/'\naction = 'skip'", "number: .*can take for ever"),
        ("[[rule]]\nheader = 'X: y'\naction = 'skip'", "header: must be a table"),
        ("[[rule]]\nheader = {}\naction = 'skip'", "header: must be a table"),
        ("[[rule]]\nheader = {X = []}\naction = 'skip'", "header: is an empty list"),
        ("[[rule]]\naddress = 'example.com'\naction = 'skip'", "address: 'example.com' is no address"),
        ("[[rule]]\ndirection = 'inbound'\naction = 'skip'", r"direction: says nothing without \[policy\] local"),
        ("policy.local='a'\n[[rule]]\ndirection = 'in'\naction = 'skip'", "direction: 'in' is none of inbound"),
        ("[[rule]]\nvlan = 4095\naction = 'skip'", "vlan: 4095 is no VLAN; write 100"),
        ("[[rule]]\nvlan = 'ten'\naction = 'skip'", "vlan: 'ten' is no VLAN"),
        ("[[rule]]\nvlan = true\naction = 'skip'", "vlan: True is no VLAN"),
        ("[[rule]]\nvlan = []\naction = 'skip'", "vlan: is an empty list"),
        ("[[rule]]\nvxlan = 16777216\naction = 'skip'", "vxlan: 16777216 is no VXLAN network identifier"),
        ("[[rule]]\nhours = 'Mo-Fr'\naction = 'skip'", "hours: 'Mo-Fr' is no time zone"),
        ("[[rule]]\npercent = 0\naction = 'skip'", "percent: must be a number above 0 and up to 100, not 0"),
        ("[[rule]]\npercent = nan\naction = 'skip'", "percent: must be a number above 0"),
        ("[[rule]]\npercent = true\naction = 'skip'", "percent: must be a number"),
        ("[[rule]]\nmedia_only = 1\naction = 'skip'", "media_only: must be true or false, not 1"),
        ("[[rule]]\naction = 'record'\nkeep_packets = 1", "keep_packets: must be true or false"),
        ("[[rule]]\naction = 'record'\ntags = 'a b'", "tags: 'a b' is no tag"),
        ("[[rule]]\naction = 'record'\ntags = ['../x']", "is no tag"),
        ("[[rule]]\naction = 'skip'\ntags = ['x']", "tags: has no effect on calls that are skipped"),
        ("[[rule]]\naction = 'skip'\nkeep_packets = true", "keep_packets: has no effect"),
    ],
)
def test_what_is_wrong_names_file_rule_and_key(text, says):
    with pytest.raises(SettingsError, match=says):
        load(text)


DOCUMENT = Path(__file__).parents[2] / "docs" / "policy.md"


def test_the_example_of_the_document_is_a_policy(tmp_path):
    (example,) = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    path = tmp_path / "spanrec.toml"
    path.write_text(example)
    found = load_policy(read(path), path)
    assert [rule.decision.rule for rule in found.rules][1] == "rule 2 (works council)"
    assert load_retention(read(path), path).tags.keys() == {"emergency", "sample"}


def test_the_document_tells_of_every_key():
    text = DOCUMENT.read_text()
    for key in (*_CONDITIONS, *_DOING, *_POLICY, *_TERMS, "min_free"):
        assert f"`{key}`" in text, key

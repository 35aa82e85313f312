"""The recording policy."""

import random
import threading
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from capture.address import Endpoint
from decoders.sip import parse_message
from recorder.amounts import Age
from recorder.call_events import CallStarted
from recorder.call_facts import CallFacts, Heard, facts_of_call, facts_of_media
from recorder.calls import CallTracker
from recorder.model import Sighting
from recorder.policy import Action, Decision, Policy, PolicyHolder, Rule, note_decision
from recorder.policy_file import load_policy
from tests.calls import START, answered_call, endpoint

PROXY, PHONE = endpoint("10.0.0.1", 5060), endpoint("192.0.2.7", 5060)


def facts(caller: str = "sip:alice@example.com", callee: str = "sip:bob@example.net", **more: object) -> CallFacts:
    return CallFacts(call_id="a@b", started=START, callers=(Heard(caller),), callees=(Heard(callee),), **more)  # type: ignore[arg-type]


def policy(*rules: dict[str, object], **table: object) -> Policy:
    from pathlib import Path

    return load_policy({"rule": list(rules), "policy": table}, Path("spanrec.toml"))


def test_without_rules_every_call_is_recorded():
    assert Policy().decide(facts()) == Decision(Action.RECORD, False, (), "no rule")


@given(st.lists(st.booleans(), max_size=12))
def test_the_first_rule_that_holds_decides(held):
    rules = [
        Rule((lambda _, holds=holds: holds,), Decision(Action.SKIP, rule=f"rule {number}"))
        for number, holds in enumerate(held)
    ]
    decided = Policy(tuple(rules), Decision(rule="none")).decide(facts())
    assert decided.rule == (f"rule {held.index(True)}" if True in held else "none")


@given(st.lists(st.booleans(), max_size=6))
def test_a_rule_holds_where_all_its_conditions_do(held):
    rule = Rule(tuple(lambda _, holds=holds: holds for holds in held), Decision())
    assert rule.holds(facts()) is all(held)


def test_a_decision_says_all_that_is_done_and_why():
    found = policy(
        {"name": "sales", "number": "alice", "action": "record", "keep_packets": True, "tags": ["vip", "a1", "vip"]},
        default="metadata",
    )
    assert str(found.decide(facts())) == "rule 1 (sales): record, keep packets, tags a1 vip"
    assert str(found.decide(facts(caller="sip:x@y"))) == "no rule: metadata"


def test_a_decision_goes_into_the_trace_and_its_tags_on_the_call():
    call = answered_call()
    note_decision(call, Decision(Action.RECORD, tags=("sales",), rule="rule 3 (sales)"))
    assert call.tags == ("sales",)
    assert (call.trace[-1].code, call.trace[-1].text) == ("policy", "rule 3 (sales): record, tags sales")
    assert call.trace[-1].time == call.started


INVITE = b"""INVITE sip:+4930222@10.0.0.1 SIP/2.0
v: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK1
f: "Zoe" <sip:zoe@example.com>;tag=1
t: <sip:222@example.net>
P-Asserted-Identity: <tel:+49-30-111>
Diversion: <sip:555@example.net>
X-TENANT: acme-north
s: urgent
i: call@7
CSeq: 1 INVITE
c: application/sdp

v=0
o=- 1 1 IN IP4 198.51.100.9
s=-
c=IN IP4 198.51.100.9
t=0 0
m=audio 4000 RTP/AVP 0
""".replace(b"\n", b"\r\n")


def facts_on_the_wire(data: bytes = INVITE, source: Endpoint = PHONE, destination: Endpoint = PROXY) -> CallFacts:
    message = parse_message(data)
    assert message is not None
    seen = Sighting(START, 1, 0, source, destination, realm=77)
    (started, *_) = CallTracker().feed(message, seen)
    assert isinstance(started, CallStarted)
    return facts_of_call(started.call, message, seen)


def test_facts_are_what_the_invite_says():
    found = facts_on_the_wire()
    assert [(one.user, one.host, one.name) for one in found.callers] == [
        ("+4930111", "", None),
        ("zoe", "example.com", "Zoe"),
    ]
    assert {one.user for one in found.callees} == {"222", "+4930222"}
    assert (found.source, found.destination, found.realm) == (PHONE, PROXY, 77)
    assert found.media == (endpoint("198.51.100.9", 4000),)
    assert (found.call_id, found.started) == ("call@7", START)
    assert list(found.header("subject")) == ["urgent"]
    assert list(found.header("x-tenant")) == ["acme-north"]


def test_a_call_whose_invite_was_not_seen_is_known_by_what_came_first():
    answer = INVITE.replace(b"INVITE sip:+4930222@10.0.0.1 SIP/2.0", b"SIP/2.0 200 OK")
    found = facts_on_the_wire(answer, source=PROXY, destination=PHONE)
    assert (found.source, found.destination) == (PHONE, PROXY)
    assert {one.user for one in found.callers} == {"zoe"}
    assert list(found.header("X-Tenant")) == list(found.media) == []


def test_media_alone_is_known_by_its_addresses():
    found = facts_of_media(START, endpoint("192.0.2.7", 4000), endpoint("10.0.0.1", 4002), 5)
    by = [
        {"caller": "*", "action": "skip"},
        {"number": "/./", "action": "skip"},
        {"header": {"To": "*"}, "action": "skip"},
        {"direction": ["inbound", "outbound", "internal", "transit"], "action": "skip"},
        {"media_only": False, "action": "skip"},
        {"address": "10.0.0.0/8", "percent": 100, "media_only": True, "action": "metadata"},
    ]
    assert policy(*by, local="10.0.0.0/8").decide(found).rule == "rule 6"


def test_a_refused_file_leaves_the_rules_as_they_were(tmp_path):
    path = tmp_path / "spanrec.toml"
    said: list[str] = []
    path.write_text('[[rule]]\nnumber = "alice"\naction = "skip"\n[retention]\nkeep = "1y"\n')
    holder = PolicyHolder(Policy(), said.append, taken=said.append)
    assert holder.reload(path)
    assert holder.decide(facts()).action is Action.SKIP
    for bad in (
        "[[rule]\n",
        '[[rule]]\nnumber = "alice"\naction = "forget"\n',
        '[[rule]]\ncolour = "red"\n',
        "x = 1\n",
        "[retention]\nkeep = 1",
    ):
        path.write_text(bad)
        assert not holder.reload(path)
        assert holder.decide(facts()).action is Action.SKIP
        assert holder.retention.terms.keep == Age(1, "y")
        assert said[-1].startswith(f"{path}: ")
        assert said[-1].endswith("; the recording policy stays as it was")
    path.unlink()
    assert not holder.reload(path)
    path.write_text("")
    assert holder.reload(path)
    assert said[-1] == f"{path}: 0 rules are in force"
    assert holder.decide(facts()).action is Action.RECORD


def test_whoever_decides_while_rules_are_exchanged_does_so_by_one_set_of_them(tmp_path):
    path = tmp_path / "spanrec.toml"
    holder = PolicyHolder(policy({"number": "*", "action": "record", "tags": "a"}), lambda _: None)
    seen, over = set(), threading.Event()

    def decide() -> None:
        while not over.is_set():
            decided = holder.decide(facts())
            seen.add((decided.action, decided.tags))

    thread = threading.Thread(target=decide)
    thread.start()
    try:
        for turn in range(50):
            action, name = ("metadata", "b") if turn % 2 else ("record", "a")
            path.write_text(f'[[rule]]\nnumber = "*"\naction = "{action}"\ntags = ["{name}"]\n')
            assert holder.reload(path)
    finally:
        over.set()
        thread.join(10)
    assert seen <= {(Action.RECORD, ("a",)), (Action.METADATA, ("b",))}


@settings(max_examples=30)
@given(st.binary(max_size=400), st.integers(0, 2**32 - 1))
def test_no_message_breaks_a_decision(noise, seed):
    at = random.Random(seed).randrange(len(INVITE))
    message = parse_message(INVITE[:at] + noise + INVITE[at:])
    asked = policy(
        {"caller": "/^sip:[^@]+@[^.]+$/", "header": {"X-Tenant": "a*z"}, "action": "skip"},
        {"callee": "*9*8*", "direction": "inbound", "percent": 5, "action": "skip"},
        {"hours": "Mo-Fr 08:00-18:00 Europe/Berlin", "action": "record"},
        local=["10.0.0.0/8", "*.example.com"],
    )
    if message is not None:
        for event in CallTracker().feed(message, Sighting(START, 1, 0, PHONE, PROXY)):
            if isinstance(event, CallStarted):
                asked.decide(facts_of_call(event.call, message, Sighting(START, 1, 0, PHONE, PROXY)))


def test_a_decision_costs_microseconds():
    rules = [
        {"caller": f"+49{number}*", "callee": "/0190/", "header": {"X-A": "b"}, "action": "skip"}
        for number in range(50)
    ]
    asked, call = policy(*rules), facts(caller="sip:+4930111@example.com")
    begin = time.perf_counter()
    for _ in range(200):
        asked.decide(call)
    # 50 rules take some 30 µs; the bound leaves room for a machine that does ten other things.
    assert (time.perf_counter() - begin) / 200 < 0.001

"""The state of a session's metadata: what complete and partial documents come to, one after the other."""

import os
from pathlib import Path

import pytest

from recorder.model import Side
from recorder.siprec.srs_metadata import MOST, MetadataState
from tests.srs_lab import ALICE, BOB, CALL, CAROL, GROUP, HEAD, S1, S2, S3, metadata, partial, stamp

STANDARDS = os.environ.get("SPANREC_STANDARDS", Path(__file__).parents[4] / "shared" / "standards")
EXAMPLES = Path(STANDARDS) / "examples"


def state_of(*documents):
    state = MetadataState()
    for document in documents:
        state.take(document.encode() if isinstance(document, str) else document)
    return state


def flows(view, session=0):
    return {flow.id: (flow.label, flow.senders, flow.receivers) for flow in view.sessions[session].flows}


def test_a_snapshot_tells_everything():
    state = state_of(metadata())
    view = state.view()
    (session,) = view.sessions
    assert (session.id, session.group) == (CALL, GROUP)
    assert [member.person for member in session.members] == [ALICE, BOB]
    assert flows(view) == {S1: ("1", (ALICE,), (BOB,)), S2: ("2", (BOB,), (ALICE,))}
    assert [(i.uri, i.name) for i in view.persons[ALICE].identities] == [("sip:alice@a.example", "Alice")]
    assert (state.complete, view.said, view.notes) == (True, True, ())


def test_a_complete_document_replaces_all_that_was_said_before():
    view = state_of(metadata(), metadata(session="other").replace(BOB, CAROL)).view()
    assert [session.id for session in view.sessions] == ["other"]
    assert set(view.persons) == {ALICE, CAROL}


def test_a_partial_document_changes_only_what_it_names():
    view = state_of(metadata(), partial(f'<session session_id="{CALL}"><stop-time>{stamp(9)}</stop-time></session>'))
    (session,) = view.view().sessions
    assert session.group == GROUP
    assert session.start is not None
    assert session.stop == session.start + 9_000_000_000
    assert flows(view.view()) == flows(state_of(metadata()).view())


def test_the_streams_of_a_participant_are_replaced_as_a_whole():
    held = partial(f'<participantstreamassoc participant_id="{BOB}"><recv>{S1}</recv></participantstreamassoc>')
    empty = partial(f'<participantstreamassoc participant_id="{BOB}"/>')
    assert flows(state_of(metadata(), held).view())[S2] == ("2", (), (ALICE,))
    assert flows(state_of(metadata(), held, empty).view())[S1] == ("1", (ALICE,), ())


def test_names_given_again_replace_those_of_before_and_others_stay():
    named = partial(f'<participant participant_id="{BOB}"><nameID aor="tel:+1"/></participant>')
    view = state_of(metadata(), named).view()
    assert [i.uri for i in view.persons[BOB].identities] == ["tel:+1"]
    assert [i.uri for i in view.persons[ALICE].identities] == ["sip:alice@a.example"]


def test_a_participant_that_leaves_keeps_the_time_at_which_it_came():
    left = partial(
        f'<participantsessionassoc participant_id="{BOB}" session_id="{CALL}"><disassociate-time>{stamp(5)}'
        f"</disassociate-time></participantsessionassoc>"
    )
    (session,) = state_of(metadata(), left).view().sessions
    (member,) = [member for member in session.members if member.person == BOB]
    assert (member.joined is not None, member.left - member.joined) == (True, 5_000_000_000)


def test_what_is_referred_to_and_never_defined_is_no_error():
    """RFC 7866, section 9.2: another SRC may define it."""
    dangling = partial(
        f'<stream stream_id="{S3}" session_id="elsewhere"><label>9</label></stream>'
        f'<participantstreamassoc participant_id="nobody"><send>{S3}</send></participantstreamassoc>'
    )
    state = state_of(metadata(), dangling)
    view = state.view()
    assert [session.id for session in view.sessions] == [CALL, "elsewhere"]
    assert view.sessions[1].flows[0].senders == ("nobody",)
    assert view.notes == ()


def test_one_identifier_for_two_kinds_is_noted_across_documents_too():
    later = partial(f'<participant participant_id="{S1}"><nameID aor="sip:x@y"/></participant>')
    assert any("one identifier" in note for note in state_of(metadata(), later).view().notes)


def test_a_partial_document_first_leaves_the_state_unknown():
    state = state_of(partial(f'<session session_id="{CALL}"/>'))
    assert (state.complete, state.documents) == (False, 1)
    assert state_of(partial(""), metadata()).complete


@pytest.mark.parametrize("octets", [b"", b"   ", b"no xml", b"\xff\xfe\x00", b"<", b"<recording"])
def test_what_cannot_be_read_changes_nothing(octets):
    state = state_of(metadata())
    before = state.view().sessions
    state.take(octets)
    assert state.view().sessions == before


def test_an_empty_recording_is_a_session_without_a_call():
    view = state_of(f"{HEAD}</recording>").view()
    assert (view.sessions, view.said) == ((), True)


def test_what_is_kept_is_bounded():
    state = MetadataState()
    for number in range(3 * MOST):
        state.take(partial(f'<session session_id="s{number}"/><participant participant_id="p{number}"/>').encode())
    view = state.view()
    assert len(view.sessions) == MOST
    assert len(view.persons) == MOST
    assert view.sessions[-1].id == f"s{3 * MOST - 1}"


def test_our_own_extension_is_read_and_that_of_others_is_not():
    facts = '<sr:call xmlns:sr="{}" state="completed" answered="2026-01-01T00:00:00Z" ended-by="callee"/></session>'
    party = '</nameID><sr:party xmlns:sr="{}" role="callee" address="10.0.0.1:5060"/>'
    for namespace, told in (("urn:spanrec:metadata:1", True), ("urn:x", False)):
        said = metadata().replace("</session>", facts.format(namespace)).replace(
            "<name>Alice</name></nameID>", "<name>Alice</name>" + party.format(namespace)
        )  # fmt: skip
        view = state_of(said).view()
        assert (view.sessions[0].facts.state == "completed") is told
        assert (view.sessions[0].facts.ended_by is Side.CALLEE) is told
        assert (view.persons[ALICE].role is Side.CALLEE) is told


# The examples of RFC 8068 one after the other


def example(name):
    path = EXAMPLES / name
    if not path.exists():
        pytest.skip("the examples of the standards are not here (set SPANREC_STANDARDS)")
    return path.read_bytes()


def test_hold_and_resume_of_rfc_8068():
    basic = example("rfc8068/3.2.1_basic_complete.xml")
    state = state_of(basic)
    before = flows(state.view())
    assert all(len(senders) == len(receivers) == 1 for _, senders, receivers in before.values())
    state.take(example("rfc8068/3.2.2_hold_partial.xml"))
    held = flows(state.view())
    assert sum(not senders for _, senders, _ in held.values()) == len(held) // 2
    state.take(example("rfc8068/3.2.2_resume_partial.xml"))
    assert flows(state.view()) == before


def test_the_end_of_rfc_8068():
    state = state_of(example("rfc8068/3.2.1_basic_complete.xml"), example("rfc8068/3.2.4_bye_partial.xml"))
    (session,) = state.view().sessions
    assert session.stop is not None


@pytest.mark.parametrize(
    "names",
    [
        ("3.2.1_basic_complete", "3.2.3_transfer-reinvite_partial"),
        ("3.2.1_basic_complete", "3.2.3_transfer-refer-1_partial", "3.2.3_transfer-refer-2_complete"),
        ("3.3.1_mixed_complete", "3.3.2_mixed-hold_partial", "3.3.2_mixed-resume_partial"),
        ("3.3.1_mixed_complete", "3.3.3_join_partial", "3.3.3_drop_partial"),
        ("3.2.1_basic_complete", "3.4.1_persistent-disconnect_partial"),
        ("3.5_turret_two-cs_complete",),
    ],
)
def test_every_sequence_of_rfc_8068_has_sessions_and_people(names):
    view = state_of(*(example(f"rfc8068/{name}.xml") for name in names)).view()
    assert view.sessions
    assert view.persons
    assert len(view.sessions) == (2 if "turret" in names[0] else len(view.sessions))

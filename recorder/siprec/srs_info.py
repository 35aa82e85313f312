"""How a recording session with us stands, for an operator.

In: a session, what the engine's thread says of it, the state of its ports. Out: `SessionInfo`.
"""

from recorder.model import IdentityOrigin
from recorder.siprec.control import LegInfo, Role, SessionInfo, SessionState
from recorder.siprec.srs_answer import Line
from recorder.siprec.srs_calls import SessionCalls
from recorder.siprec.srs_session import Reception, ServerSession
from recorder.siprec.srs_view import Person


def info_of(session: ServerSession, calls: SessionCalls, reception: Reception) -> SessionInfo:
    """How a session stands."""
    if session.over:
        state = SessionState.ENDED
    else:
        state = SessionState.PAUSED if session.paused else SessionState.RECORDING
    view, dialog = session.view, session.session
    named = [each.facts.call_id for each in view.sessions if each.facts.call_id]
    named += [each for known in view.sessions for each in known.sip_session_ids]
    persons = [_name(person) for person in view.persons.values()]
    groups = [each.group for each in view.sessions if each.group]
    return SessionInfo(
        id=session.id,
        role=Role.SRS,
        state=state,
        peer=dialog.remote_uri if dialog is not None else "",
        rs_call_id=session.call_id,
        calls=calls.identifiers.get(session.number, ()),
        call_ids=tuple(dict.fromkeys(named)),
        caller=persons[0] if persons else "",
        callee=persons[1] if len(persons) > 1 else "",
        since=session.began,
        group=groups[0] if groups else "",
        legs=() if session.over else tuple(_leg(session, line, reception) for line in session.lines),
        note=session.note,
    )


def _leg(session: ServerSession, line: Line, reception: Reception) -> LegInfo:
    state = reception.state(line.port)
    senders = [
        _name(person)
        for each in session.view.sessions
        for flow in each.flows
        if flow.label == line.label and line.label is not None
        for sender in flow.senders
        if (person := session.view.persons.get(sender)) is not None
    ]
    source = state.address or line.source
    return LegInfo(
        label=line.label or "",
        participant=", ".join(senders[:4]),
        codec=next((known.rtpmap for known in line.formats.values()), ""),
        local=str(line.port.rtp),
        remote="" if source is None else str(source),
        packets=state.packets,
        lost=max(state.lost, 0),
        encrypted=line.encrypted,
    )


def _name(person: Person) -> str:
    own = [each.uri for each in person.identities if each.origin is not IdentityOrigin.DIVERSION]
    return own[0] if own else ""

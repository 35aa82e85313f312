"""A recording session of ours as operators see it."""

from recorder.model import Side
from recorder.siprec.control import LegInfo, Role, SessionInfo
from recorder.siprec.src_session import SrcSession


def info_of(session: SrcSession) -> SessionInfo:
    """What there is to say of a session now."""
    link = session.link
    first = session.calls[0].picture if session.calls else session.telling.first
    names = {side: first.party(side).names[0][0] if first is not None else "" for side in Side}
    return SessionInfo(
        id=session.id,
        role=Role.SRC,
        state=session.state,
        peer=session.telling.peer,
        rs_call_id=link.session.call_id if link is not None and link.session is not None else "",
        calls=tuple(str(call.picture.id) for call in session.calls),
        call_ids=tuple(call.picture.call_id for call in session.calls if call.picture.call_id),
        caller=names[Side.CALLER],
        callee=names[Side.CALLEE],
        since=session.since,
        group=str(first.group) if first is not None else "",
        instance=session.instance.name,
        legs=_legs(session),
        attempts=tuple(session.connector.attempts),
        note="; ".join(filter(None, [session.note, *(link.notes if link is not None else ())])),
    )


def _legs(session: SrcSession) -> tuple[LegInfo, ...]:
    reports = session.media.reports()
    found = []
    for line in session.media.offer.lines:
        if line.leg is None or line.local is None:
            continue
        report, remote = reports.get(line.leg), line.remote
        accepted = remote.payload_types if remote is not None else {}
        codec = next((each.rtpmap for each in line.formats.values() if each in accepted), "")
        found.append(
            LegInfo(
                label=line.label,
                participant=line.leg.source.side,
                codec=codec,
                local=str(line.local.rtp),
                remote=str(remote.rtp) if remote is not None else line.refused,
                packets=report.packets if report is not None else 0,
                lost=(report.cumulative_lost or 0) if report is not None else 0,
                encrypted=bool(line.keys),
            )
        )
    return tuple(found)

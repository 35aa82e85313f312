"""The metadata document of a recording, `metadata.xml` (RFC 7865): a complete snapshot of a call that has ended.

In: what the stages of the recorder report of one call (`recorder.model`). Out: bytes of XML that are valid by the
schema of RFC 7865, section 9, and the same for the same input on every machine. Names and addresses come from the
wire: whatever they hold, the document stays well-formed. What was not observed is absent: a session whose end was not
seen has no stop-time, media without signalling has no start-time.

What the standard has no place for is in `metadata_extension`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from uuid import UUID

from recorder import metadata_extension as extension
from recorder.document import format_time
from recorder.metadata_ids import Identifiers, Texts, id_text
from recorder.metadata_text import ANONYMOUS, aor_uri, xml_text
from recorder.model import AudioReport, Call, CallState, CaptureReport, IdentityOrigin, Party, Side, StreamReport
from recorder.xml_element import DECLARATION, content, document, leaf, quoted

NAMESPACE = "urn:ietf:params:xml:ns:recording:1"

_HEAD = f"""{DECLARATION}\
<recording xmlns="{NAMESPACE}" xmlns:{extension.PREFIX}="{extension.NAMESPACE}">
  <datamode>complete</datamode>
"""
_SHORT = range(-0x8000, 0x8000)
"""xs:short, the type of a reason's cause."""
_OPEN_ENDED = (CallState.ACTIVE, CallState.INCOMPLETE, CallState.MEDIA_ONLY)
"""States of calls whose end was not seen."""


def build_metadata(
    call: Call,
    streams: Sequence[StreamReport],
    audio: AudioReport | None,
    captures: Sequence[CaptureReport],
    *,
    ids: Identifiers,
    group_id: UUID,
    version: str | None = None,
) -> bytes:
    """The document of `call`.

    Args:
        call: The call, ended or as far as it was seen.
        streams: Its streams, in the order of their labels.
        audio: Its audio, None where there is none.
        captures: Of the whole run, indexed by capture index.
        ids: What identifies its parts.
        group_id: Of its conversation, as in call.json: the identifier of the first call, its own where alone.
        version: Of the program; that of the installed distribution where not given.
    """
    texts = ids.texts(group_id)
    placed = list(zip(streams, _stream_ids(streams, ids), strict=True))
    parties = [(call.caller, texts.participants[Side.CALLER]), (call.callee, texts.participants[Side.CALLEE])]
    parties += [(party, id_text(ids.other(place))) for place, party in enumerate(call.others)]
    parts = [
        _HEAD,
        _group(call, texts, group_id),
        _session(call, texts),
        *[_participant(party, identifier) for party, identifier in parties],
        *[_stream(stream, stream_id, texts) for stream, stream_id in placed],
        _session_recording(call, streams, texts),
        *[_participant_session(call, party, identifier, texts) for party, identifier in parties],
        _participant_streams(Side.CALLER, placed, texts),
        _participant_streams(Side.CALLEE, placed, texts),
        extension.provenance(call, audio, captures, version or _version()),
        "</recording>\n",
    ]
    return document("".join(parts))


@cache
def _version() -> str | None:
    try:
        return installed_version("spanrec")
    except PackageNotFoundError:
        return None


def time_lines(
    begin: int | None, end: int | None, first: str = "associate-time", last: str = "disassociate-time"
) -> str:
    """Begin and end as far as known; an end never lies before its begin (captures of two clocks can say so)."""
    if begin is None:
        return "" if end is None else f"    <{last}>{format_time(end)}</{last}>\n"
    if end is None:
        return f"    <{first}>{format_time(begin)}</{first}>\n"
    end = max(begin, end)
    return f"    <{first}>{format_time(begin)}</{first}>\n    <{last}>{format_time(end)}</{last}>\n"


def _stream_ids(streams: Sequence[StreamReport], ids: Identifiers) -> list[str]:
    """`stream_id` of each stream; streams that share a label are still told apart."""
    if not streams:
        return []
    seen: Counter[str] = Counter()
    found = []
    for stream in streams:
        found.append(ids.stream_text(stream.label, seen[stream.label]))
        seen[stream.label] += 1
    return found


def _stop(call: Call) -> int | None:
    """When the session ended, None where its end was not seen."""
    return None if call.state in _OPEN_ENDED else call.ended


def _group(call: Call, texts: Texts, group_id: UUID) -> str:
    """RFC 7865, section 6.2. When a group of several calls ended is not one call's to tell."""
    alone = call.group is None and group_id == call.id
    times = time_lines(call.started, _stop(call) if alone else None)
    return f'  <group group_id="{texts.group}">\n{times}{extension.conversation(call, group_id)}  </group>\n'


def _session(call: Call, texts: Texts) -> str:
    """RFC 7865, section 6.3."""
    known = [f"    <sipSessionID>{content(each)}</sipSessionID>\n" for each in dict.fromkeys(call.session_ids)]
    for protocol, cause, text in call.reason_headers:
        if cause in _SHORT:  # what the schema cannot hold is in the extension
            known.append(leaf("    ", "reason", {"cause": cause, "protocol": protocol}, text or None))
    start = None if call.state is CallState.MEDIA_ONLY else call.started
    return (
        f'  <session session_id="{texts.session}">\n{"".join(known)}'
        f"    <group-ref>{texts.group}</group-ref>\n"
        f"{time_lines(start, _stop(call), 'start-time', 'stop-time')}{extension.call_facts(call)}  </session>\n"
    )


def _participant(party: Party, identifier: str) -> str:
    """RFC 7865, section 6.5."""
    names = ""
    for aor, name in name_ids(party):
        start = f'    <nameID aor="{quoted(aor)}"'
        names += f"{start}>\n      <name>{content(name)}</name>\n    </nameID>\n" if name else f"{start}/>\n"
    return f'  <participant participant_id="{identifier}">\n{names}{extension.party_facts(party)}  </participant>\n'


def name_ids(party: Party) -> list[tuple[str, str | None]]:
    """(AoR, name) in order of trust, an AoR once for each name that it was heard with.

    Who diverted a call is not its participant, and a Request-URI tells where a request was sent, not who answers:
    it serves where nothing better was heard.
    """
    own = [i for i in party.identities if i.origin is not IdentityOrigin.DIVERSION]
    better = [i for i in own if i.origin is not IdentityOrigin.REQUEST_URI] or own
    names: dict[str, dict[str, None]] = {}
    for uri, named, _ in better:
        heard = names.setdefault(aor_uri(uri), {})
        if named and named.strip():
            heard[xml_text(named)] = None
    found: list[tuple[str, str | None]] = []
    for aor, heard in names.items():
        found += [(aor, name) for name in heard] or [(aor, None)]
    return found or [(ANONYMOUS, None)]


def _stream(stream: StreamReport, stream_id: str, texts: Texts) -> str:
    """RFC 7865, section 6.7."""
    return (
        f'  <stream stream_id="{stream_id}" session_id="{texts.session}">\n'
        f"    <label>{content(stream.label)}</label>\n{extension.media_facts(stream)}  </stream>\n"
    )


def _session_recording(call: Call, streams: Sequence[StreamReport], texts: Texts) -> str:
    """RFC 7865, section 6.4: the call was recorded from its first packet seen to its last."""
    begin = min([call.started, *[s.started for s in streams]])
    end = max([call.last_seen, call.ended or 0, *[s.ended for s in streams]])
    return (
        f'  <sessionrecordingassoc session_id="{texts.session}">\n{time_lines(begin, end)}  </sessionrecordingassoc>\n'
    )


def _participant_session(call: Call, party: Party, identifier: str, texts: Texts) -> str:
    """RFC 7865, section 6.6; the parameters are the capabilities of the participant's Contact (RFC 3840)."""
    answered = call.answered if party is call.callee else None
    joined = party.joined if party.joined is not None else answered if answered is not None else call.started
    times = time_lines(joined, party.left if party.left is not None else _stop(call))
    params = [leaf("    ", "param", {"pname": name, "pval": value}) for name, value in party.contact_params]
    return (
        f'  <participantsessionassoc participant_id="{identifier}" session_id="{texts.session}">\n'
        f"{times}{''.join(params)}  </participantsessionassoc>\n"
    )


def _participant_streams(side: Side, streams: Iterable[tuple[StreamReport, str]], texts: Texts) -> str:
    """RFC 7865, section 6.8: each participant sends its own streams and receives the other's."""
    placed = [(stream, stream_id) for stream, stream_id in streams if stream.side is not None]
    if not placed:
        return ""
    lines = [
        f"    <{name}>{stream_id}</{name}>\n"
        for name, owner in (("send", side), ("recv", side.other))
        for stream, stream_id in placed
        if stream.side is owner
    ]
    times = time_lines(min(s.started for s, _ in placed), max(s.ended for s, _ in placed))
    return (
        f'  <participantstreamassoc participant_id="{texts.participants[side]}">\n{"".join(lines)}{times}'
        "  </participantstreamassoc>\n"
    )

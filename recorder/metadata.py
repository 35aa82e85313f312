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
from recorder.xml_element import Element

NAMESPACE = "urn:ietf:params:xml:ns:recording:1"

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
    recording = Element("recording", {"xmlns": NAMESPACE, f"xmlns:{extension.PREFIX}": extension.NAMESPACE})
    _add(recording, "datamode", "complete")
    texts = ids.texts(group_id)
    stream_ids = _stream_ids(streams, ids)
    _add_group(recording, call, texts, group_id)
    _add_session(recording, call, texts)
    for party in (call.caller, call.callee):
        _add_participant(recording, party, texts)
    for stream, stream_id in zip(streams, stream_ids, strict=True):
        element = _add(recording, "stream", stream_id=stream_id, session_id=texts.session)
        _add(element, "label", stream.label)
        extension.add_media(element, stream)
    _add_session_recording(recording, call, streams, texts)
    for party in (call.caller, call.callee):
        _add_participant_session(recording, call, party, texts)
    for side in Side:
        _add_participant_streams(recording, side, streams, stream_ids, texts)
    extension.add_provenance(recording, call, audio, captures, version or _version())
    return recording.document()


@cache
def _version() -> str | None:
    try:
        return installed_version("spanrec")
    except PackageNotFoundError:
        return None


def _add(parent: Element, name: str, text: str | None = None, **attributes: str) -> Element:
    return parent.add(name, attributes, text)


def _add_times(parent: Element, begin: int | None, end: int | None, names: tuple[str, str]) -> None:
    """Begin and end as far as known; an end never lies before its begin (captures of two clocks can say so)."""
    if begin is not None:
        _add(parent, names[0], format_time(begin))
    if end is not None:
        _add(parent, names[1], format_time(end if begin is None else max(begin, end)))


_ASSOCIATION = ("associate-time", "disassociate-time")
_SESSION = ("start-time", "stop-time")


def _stream_ids(streams: Sequence[StreamReport], ids: Identifiers) -> list[str]:
    """`stream_id` of each stream; streams that share a label are still told apart."""
    seen: Counter[str] = Counter()
    found = []
    for stream in streams:
        found.append(id_text(ids.stream(stream.label, seen[stream.label])))
        seen[stream.label] += 1
    return found


def _stop(call: Call) -> int | None:
    """When the session ended, None where its end was not seen."""
    return None if call.state in _OPEN_ENDED else call.ended


def _add_group(recording: Element, call: Call, texts: Texts, group_id: UUID) -> None:
    """RFC 7865, section 6.2. When a group of several calls ended is not one call's to tell."""
    alone = call.group is None and group_id == call.id
    element = _add(recording, "group", group_id=texts.group)
    _add_times(element, call.started, _stop(call) if alone else None, _ASSOCIATION)
    extension.add_conversation(element, call, group_id)


def _add_session(recording: Element, call: Call, texts: Texts) -> None:
    """RFC 7865, section 6.3."""
    element = _add(recording, "session", session_id=texts.session)
    for session_id in dict.fromkeys(call.session_ids):
        _add(element, "sipSessionID", session_id)
    for protocol, cause, text in call.reason_headers:
        if cause in _SHORT:  # what the schema cannot hold is in the extension
            _add(element, "reason", text or None, cause=str(cause), protocol=protocol)
    _add(element, "group-ref", texts.group)
    start = None if call.state is CallState.MEDIA_ONLY else call.started
    _add_times(element, start, _stop(call), _SESSION)
    extension.add_call(element, call)


def _add_participant(recording: Element, party: Party, texts: Texts) -> None:
    """RFC 7865, section 6.5."""
    element = _add(recording, "participant", participant_id=texts.participants[party.side])
    for aor, name in _name_ids(party):
        identity = _add(element, "nameID", aor=aor)
        if name:
            _add(identity, "name", name)
    extension.add_party(element, party)


def _name_ids(party: Party) -> list[tuple[str, str | None]]:
    """(AoR, name) in order of trust, an AoR once for each name that it was heard with.

    Who diverted a call is not its participant, and a Request-URI tells where a request was sent, not who answers:
    it serves where nothing better was heard.
    """
    own = [i for i in party.identities if i.origin is not IdentityOrigin.DIVERSION]
    better = [i for i in own if i.origin is not IdentityOrigin.REQUEST_URI] or own
    names: dict[str, dict[str, None]] = {}
    for identity in better:
        heard = names.setdefault(aor_uri(identity.uri), {})
        if identity.name and identity.name.strip():
            heard[xml_text(identity.name)] = None
    found: list[tuple[str, str | None]] = []
    for aor, heard in names.items():
        found += [(aor, name) for name in heard] or [(aor, None)]
    return found or [(ANONYMOUS, None)]


def _add_session_recording(recording: Element, call: Call, streams: Sequence[StreamReport], texts: Texts) -> None:
    """RFC 7865, section 6.4: the call was recorded from its first packet seen to its last."""
    element = _add(recording, "sessionrecordingassoc", session_id=texts.session)
    begin = min([call.started, *(s.started for s in streams)])
    end = max([call.last_seen, call.ended or 0, *(s.ended for s in streams)])
    _add_times(element, begin, end, _ASSOCIATION)


def _add_participant_session(recording: Element, call: Call, party: Party, texts: Texts) -> None:
    """RFC 7865, section 6.6; the parameters are the capabilities of the participant's Contact (RFC 3840)."""
    element = _add(
        recording,
        "participantsessionassoc",
        participant_id=texts.participants[party.side],
        session_id=texts.session,
    )
    answered = call.answered if party.side is Side.CALLEE else None
    joined = next(time for time in (party.joined, answered, call.started) if time is not None)
    _add_times(element, joined, party.left if party.left is not None else _stop(call), _ASSOCIATION)
    for name, value in party.contact_params:
        _add(element, "param", pname=name, pval=value)


def _add_participant_streams(
    recording: Element, side: Side, streams: Sequence[StreamReport], stream_ids: Iterable[str], texts: Texts
) -> None:
    """RFC 7865, section 6.8: each participant sends its own streams and receives the other's."""
    placed = [(stream, stream_id) for stream, stream_id in zip(streams, stream_ids, strict=True) if stream.side]
    if not placed:
        return
    element = _add(recording, "participantstreamassoc", participant_id=texts.participants[side])
    for name, owner in (("send", side), ("recv", side.other)):
        for stream, stream_id in placed:
            if stream.side is owner:
                _add(element, name, stream_id)
    begin, end = min(s.started for s, _ in placed), max(s.ended for s, _ in placed)
    _add_times(element, begin, end, _ASSOCIATION)

"""What each response means for a call (RFC 3261, 3262, 3311).

In: a response as `CallProgress` placed it. Out: `CallEvent`s; the progress is brought up to date. A refusal ends the
call only where the caller hears it; behind a proxy another branch may still answer. Never raises.
"""

from collections.abc import Mapping

from recorder.call_events import CallAnswered, CallEnded, CallEvent
from recorder.call_requests import Handler, bye
from recorder.identities import learn_contact, learn_dialog, learn_sender
from recorder.model import Side
from recorder.offer_answer import Key
from recorder.progress import MAX_FINALS, Attempt, CallProgress, Heard, Refusal

CHALLENGES = (401, 407)
"""Refusals that ask the caller to try again with credentials."""


def invite_response(progress: CallProgress, heard: Heard) -> list[CallEvent]:
    """A response to an INVITE or re-INVITE, its request seen or not."""
    exchange, status = heard.exchange, heard.exchange.status or 0
    if status == 100:
        return []
    by_caller = heard.requester is Side.CALLER
    attempt = progress.attempts.get(exchange.number) if by_caller else None
    if attempt is None and by_caller and not progress.established:
        if not progress.attempts and 200 <= status < 300:
            progress.enter_dialog(heard)  # may answer a re-INVITE: when the call was answered is not known
        else:
            attempt = progress.attempt_of(heard)
            learn_dialog(progress.call, heard.message, Side.CALLER)
    if attempt is None:
        return _session_response(progress, heard, (heard.requester, exchange.number, "INVITE"))
    if not progress.invited:
        _trace_back(progress, heard)
    if status < 200:
        return _provisional(progress, attempt, heard)
    if status < 300:
        return _answer(progress, attempt, heard)
    return _refuse(progress, attempt, heard)


def _trace_back(progress: CallProgress, heard: Heard) -> None:
    """Responses go back the way of an INVITE that was not seen."""
    call, path, seen = progress.call, progress.path, heard.seen
    if path.forward(seen.destination, seen.source, heard.hop):
        call.caller.address, call.callee.address = path.caller, path.callee


def _session_response(progress: CallProgress, heard: Heard, key: Key) -> list[CallEvent]:
    """A response to a re-INVITE, UPDATE or PRACK."""
    message, exchange, seen, hop, requester = heard
    if (exchange.status or 0) >= 300:
        return progress.media.fail(key, hop, seen)
    learn_sender(progress.call.party(requester.other), message)
    tag = exchange.to_tag if requester is Side.CALLER else None
    return progress.media.response(message, key, hop, seen, tag, progress.established) if message.body else []


def _provisional(progress: CallProgress, attempt: Attempt, heard: Heard) -> list[CallEvent]:
    message, exchange, seen, hop, _ = heard
    call, status = progress.call, exchange.status or 0
    if 180 <= status <= 183:
        if call.ringing is None:
            progress.note(heard, "ringing", f"{status} {message.reason}")
        call.ringing = min(call.ringing or seen.time, seen.time)
    if exchange.to_tag and progress.tags.branch(exchange.to_tag, hop):
        progress.note(heard, "forked", f"another branch answers at hop {hop}")
    learn_sender(call.callee, message)
    if not message.body:
        return []
    if progress.once(Side.CALLEE, hop, "early-media"):
        progress.note(heard, "early-media", f"session description in a {status} at hop {hop}")
    return progress.media.response(message, attempt.key, hop, seen, exchange.to_tag, established=False)


def _answer(progress: CallProgress, attempt: Attempt, heard: Heard) -> list[CallEvent]:
    message, exchange, seen, hop, _ = heard
    call, tags, tag = progress.call, progress.tags, exchange.to_tag or ""
    events: list[CallEvent] = []
    tags.branch(tag, hop)
    if progress.bye is None:
        tags.confirm(tag, hop)
        if call.ended is not None:
            progress.reopen()
    if call.answered is None:
        events.append(CallAnswered(call, seen.time))
        progress.note(heard, "answered", f"{exchange.status} {message.reason}")
        learn_contact(call.callee, message)
    call.sip_status, call.sip_reason = exchange.status, message.reason
    call.answered = min(call.answered or seen.time, seen.time)
    if progress.invited:
        progress.path.answer(hop)
        call.callee.address = progress.path.callee
    learn_sender(call.callee, message)
    losers = [other for other in tags.others(tag, hop) if not tags.confirmed(other)]
    events += progress.media.release(losers, seen)
    if message.body:
        events += progress.media.response(message, attempt.key, hop, seen, tag, established=False)
    return events


def _refuse(progress: CallProgress, attempt: Attempt, heard: Heard) -> list[CallEvent]:
    message, exchange, seen, hop, _ = heard
    status, call = exchange.status or 0, progress.call
    key = (status, exchange.to_tag)
    if key in attempt.finals or len(attempt.finals) < MAX_FINALS:
        attempt.finals[key] = min(attempt.finals.get(key, seen.time), seen.time)
    known = attempt.refusal
    if known is not None and known.definitive:
        return []
    definitive = hop == progress.path.first_hop or progress.path.first_hop is None
    attempt.refusal = Refusal(status, message.reason, attempt.finals.get(key, seen.time), definitive)
    learn_sender(call.callee, message)
    if progress.established or attempt is not progress.attempt or not definitive:
        return []
    if status in CHALLENGES:
        progress.note(heard, "challenged", f"{status} {message.reason}")
        return []
    progress.note(heard, "refused", f"{status} {message.reason}")
    call.sip_status, call.sip_reason = status, message.reason
    call.ended = attempt.cancelled if status == 487 and attempt.cancelled else attempt.refusal.time
    progress.media.end()
    return [CallEnded(call, call.ended)]


def update_response(progress: CallProgress, heard: Heard) -> list[CallEvent]:
    """Answers or refuses the offer of an UPDATE."""
    return _session_response(progress, heard, (heard.requester, heard.exchange.number, "UPDATE"))


def prack_response(progress: CallProgress, heard: Heard) -> list[CallEvent]:
    """Answers the offer of a PRACK."""
    return _session_response(progress, heard, (heard.requester, heard.exchange.number, "PRACK"))


def bye_response(progress: CallProgress, heard: Heard) -> list[CallEvent]:
    """A 2xx proves a BYE that was not seen."""
    proves = progress.bye is None and 200 <= (heard.exchange.status or 0) < 300
    return bye(progress, heard) if proves else []


RESPONSES: Mapping[str, Handler] = {
    "INVITE": invite_response,
    "UPDATE": update_response,
    "PRACK": prack_response,
    "BYE": bye_response,
}

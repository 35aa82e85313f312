"""What each request means for a call (RFC 3261, 3262, 3311, 3515, 6086).

In: a request as `CallProgress` placed it. Out: `CallEvent`s; the progress is brought up to date. Repetitions, whether
by retransmission, by mirrors or by the next hop, change nothing but earliest times. Never raises.
"""

from collections.abc import Callable, Mapping

from decoders.dtmf import parse_info_digit
from decoders.sip import parse_sipfrag
from recorder.call_events import CallEnded, CallEvent
from recorder.dialogs import top_branch
from recorder.identities import learn_contact, learn_initial, learn_sender
from recorder.model import Digit, Side
from recorder.progress import MAX_FINALS, CallProgress, Heard

MAX_DIGITS = 1024
MAX_REASONS = 8

Handler = Callable[[CallProgress, Heard], list[CallEvent]]


def invite(progress: CallProgress, heard: Heard) -> list[CallEvent]:
    """An initial INVITE, at whatever hop, or a re-INVITE."""
    message, exchange, seen, hop, requester = heard
    if exchange.to_tag is not None and not _answers_challenge(progress, requester):
        return _reinvite(progress, heard)
    attempt = progress.attempt_of(heard)
    if attempt is None:
        return []
    if hop not in attempt.branches and len(attempt.branches) < MAX_FINALS:
        progress.fresh_invite = True
        attempt.branches[hop] = top_branch(message)
        _on_its_way(progress, heard)
    call = progress.call
    call.started = min(call.started, seen.time) if progress.invited else seen.time
    progress.invited = True
    return progress.media.request(message, attempt.key, hop, seen, None, established=False)


def _answers_challenge(progress: CallProgress, requester: Side) -> bool:
    """Some callers try again with the To tag of the refusal, though no dialog stands."""
    refused = any(attempt.refusal for attempt in progress.attempts.values())
    return refused and requester is Side.CALLER and not progress.established


def _on_its_way(progress: CallProgress, heard: Heard) -> None:
    """An initial INVITE at a hop at which its attempt was not seen before."""
    message, _, seen, hop, _ = heard
    call, path = progress.call, progress.path
    if path.forward(seen.source, seen.destination, hop):
        call.caller.address, call.callee.address = path.caller, path.callee
    learn_initial(call, message)
    learn_contact(call.caller, message)
    progress.note(heard, "invite-seen", f"INVITE {seen.source} -> {seen.destination} is hop {hop}")


def _reinvite(progress: CallProgress, heard: Heard) -> list[CallEvent]:
    message, exchange, seen, hop, requester = heard
    progress.enter_dialog(heard)
    if progress.once(requester, exchange.number, "INVITE"):
        progress.note(heard, "re-invite", f"re-INVITE by the {requester}, CSeq {exchange.number}")
        learn_sender(progress.call.party(requester), message)
    key = (requester, exchange.number, "INVITE")
    return progress.media.request(message, key, hop, seen, _callee_tag(heard), established=True)


def _callee_tag(heard: Heard) -> str | None:
    """The callee's tag where the callee sent the request, so that its endpoints belong to its branch."""
    return heard.exchange.from_key if heard.requester is Side.CALLEE else None


def ack(progress: CallProgress, heard: Heard) -> list[CallEvent]:
    """The end of an INVITE transaction; after a 2xx it may carry the answer to a late offer."""
    message, exchange, seen, hop, requester = heard
    if not progress.established:
        attempt = progress.attempts.get(exchange.number) if requester is Side.CALLER else None
        # The ACK of a refusal has the branch of its INVITE, that of a 2xx its own (RFC 3261, section 17.1.1.3).
        if attempt is not None and (attempt.refusal or attempt.branches.get(hop) == top_branch(message)):
            return []
        progress.enter_dialog(heard)
    if not message.body:
        return []
    key = (requester, exchange.number, "INVITE")
    return progress.media.acknowledgement(message, key, hop, seen, _callee_tag(heard), progress.established)


def prack(progress: CallProgress, heard: Heard) -> list[CallEvent]:
    """May answer the offer of a reliable provisional response, or make a new one (RFC 3262, section 5)."""
    message, exchange, seen, hop, requester = heard
    if not message.body:
        return []
    words = (message.get("rack") or "").split()
    number = int(words[1]) if len(words) == 3 and words[1].isascii() and words[1].isdigit() else -1
    invited = (requester, number, "INVITE")
    if progress.media.offered_late(invited):
        return progress.media.acknowledgement(message, invited, hop, seen, _callee_tag(heard), established=False)
    key = (requester, exchange.number, "PRACK")
    return progress.media.request(message, key, hop, seen, _callee_tag(heard), established=False)


def update(progress: CallProgress, heard: Heard) -> list[CallEvent]:
    """A new offer, before or after the answer (RFC 3311)."""
    message, exchange, seen, hop, requester = heard
    if not progress.attempts:
        progress.enter_dialog(heard)
    learn_sender(progress.call.party(requester), message)
    if not message.body:
        return []
    key = (requester, exchange.number, "UPDATE")
    return progress.media.request(message, key, hop, seen, _callee_tag(heard), progress.established)


def info(progress: CallProgress, heard: Heard) -> list[CallEvent]:
    """May press a key; the same CSeq presses it once."""
    message, exchange, seen, _, requester = heard
    if not progress.attempts:
        progress.enter_dialog(heard)
    pressed = parse_info_digit(message.content_type, message.body) if message.body else None
    if pressed is not None and progress.once(requester, exchange.number, "INFO"):
        digit, duration = pressed
        if len(progress.call.digits) < MAX_DIGITS:
            progress.call.digits.append(Digit(seen.time, requester, digit, duration, "info"))
        progress.note(heard, "digit", f"the {requester} presses {digit} (INFO)")
    return []


def cancel(progress: CallProgress, heard: Heard) -> list[CallEvent]:
    """Takes an attempt back, or, at a later hop, one branch of it."""
    message, _, seen, hop, _ = heard
    attempt = None if progress.established else progress.attempt_of(heard)
    if attempt is None:
        return []
    if attempt.cancelled is None:
        progress.note(heard, "cancelled", f"CANCEL at hop {hop}")
    attempt.cancelled = min(attempt.cancelled or seen.time, seen.time)
    if not progress.invited:
        learn_initial(progress.call, message)
    if hop == progress.path.first_hop or progress.path.first_hop is None:
        attempt.cancelled_by_caller = True
        progress.call.reason_headers = tuple(message.reason_headers[:MAX_REASONS])
    return []


def bye(progress: CallProgress, heard: Heard) -> list[CallEvent]:
    """Ends the dialog, and with the last dialog the call."""
    message, exchange, seen, hop, requester = heard
    call = progress.call
    if progress.bye is not None:
        progress.bye = call.ended = min(progress.bye, seen.time)
        return []
    if call.ended is not None and not progress.established:
        return []  # refused before
    if requester is Side.CALLEE or not progress.attempts:
        progress.enter_dialog(heard)
    tag = exchange.to_tag if requester is Side.CALLER else exchange.from_key
    if not progress.tags.end(tag or "", hop):
        progress.note(heard, "branch-ended", f"BYE of one branch by the {requester}")
        return []
    progress.bye = call.ended = seen.time
    call.ended_by = requester
    call.reason_headers = tuple(message.reason_headers[:MAX_REASONS])
    progress.note(heard, "ended", f"BYE by the {requester}")
    return [CallEnded(call, seen.time)]


def refer(progress: CallProgress, heard: Heard) -> list[CallEvent]:
    """Asks the other side to call somebody else."""
    message, exchange, _, _, requester = heard
    if not progress.attempts:
        progress.enter_dialog(heard)
    if progress.once(requester, exchange.number, "REFER"):
        target = message.refer_to
        progress.note(heard, "transfer", f"REFER by the {requester} to {target.uri[:200] if target else 'nobody'}")
    return []


def notify(progress: CallProgress, heard: Heard) -> list[CallEvent]:
    """May report how a transfer goes (RFC 3515, section 2.4.4)."""
    message, exchange, _, _, requester = heard
    if message.content_type == "message/sipfrag" and progress.once(requester, exchange.number, "NOTIFY"):
        line = parse_sipfrag(message.body)
        if line is not None and line.status is not None and line.status >= 200:
            code = "transferred" if line.status < 300 else "transfer-failed"
            progress.note(heard, code, f"the transfer ends with {line.status} {line.reason}")
    return []


REQUESTS: Mapping[str, Handler] = {
    "INVITE": invite,
    "ACK": ack,
    "BYE": bye,
    "CANCEL": cancel,
    "PRACK": prack,
    "UPDATE": update,
    "INFO": info,
    "REFER": refer,
    "NOTIFY": notify,
}

"""How a call ended, told from what its signalling has shown.

In: `CallProgress` of a call that is over, silent for long, or cut off by the end of the capture. Out: state, status,
end, participants' times, holds and warnings of the `Call`. Nothing is guessed: what was not seen is absent, and said.
"""

from dataclasses import dataclass

from recorder.model import CallState, Side
from recorder.progress import CallProgress
from recorder.trace import note, warn

SECOND = 1_000_000_000
BY_THE_CALLEE = frozenset({480, 486, 488, 600, 603, 606, 607})
"""Refusals that the called party makes; others come as often from servers on the way."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a call is waited for, ns of capture time."""

    grace: int = 5 * SECOND
    """After the last message of a call that ended: late responses, retransmissions."""
    challenged: int = 32 * SECOND
    """After a refusal that the caller may overcome, or a CANCEL, without anything more."""
    unanswered: int = 180 * SECOND
    """After the last message of a call that rings."""
    idle: int = 7200 * SECOND
    """After the last message and the last media of an answered call."""
    recorded: int = 10 * SECOND
    """After its end, for the recording sessions of a call to end as well."""


def deadline(progress: CallProgress, timeouts: Timeouts) -> int:
    """Capture time after which nothing more is waited for."""
    call = progress.call
    if call.ended is not None:
        # A peer that repeats for ever does not keep a call open.
        return min(progress.last_signal, call.ended + timeouts.challenged) + timeouts.grace
    if progress.established:
        return call.last_seen + timeouts.idle
    attempt = progress.attempt
    if attempt is not None and (attempt.refusal is not None or attempt.cancelled_by_caller):
        return progress.last_signal + timeouts.challenged
    return max(progress.last_signal, call.last_seen) + timeouts.unanswered


def settle(progress: CallProgress, now: int) -> None:
    """Draw the conclusion; afterwards the call does not change."""
    call = progress.call
    if progress.established or progress.bye is not None:
        _settle_established(progress)
    else:
        _settle_unanswered(progress)
    if call.ended is not None:
        # Mirrors with clocks apart may show an end before its beginning.
        call.ended = max(call.ended, call.started, call.answered or 0)
    _warn_of_gaps(progress)
    progress.media.close(call.ended if call.ended is not None else now)
    call.caller.joined = call.started if progress.invited else None
    call.callee.joined = call.answered
    call.caller.left = call.ended
    call.callee.left = call.ended if call.answered is not None else None
    note(call, call.last_seen, call.last_packet, "finished", f"{call.state}")


def _settle_established(progress: CallProgress) -> None:
    call, attempt = progress.call, progress.attempt
    if progress.bye is None:
        call.state = CallState.INCOMPLETE
        call.ended = call.last_seen
        warn(call, "end-not-seen", "The call was answered, but no BYE was seen: it ends with its last packet.")
        return
    refusal = attempt.refusal if attempt is not None else None
    if not progress.established and refusal is not None and refusal.status == 487:
        call.state = CallState.CANCELLED
        call.sip_status, call.sip_reason = refusal.status, refusal.reason
        return
    call.state = CallState.COMPLETED


def _settle_unanswered(progress: CallProgress) -> None:
    call, attempt = progress.call, progress.attempt
    refusal = attempt.refusal if attempt is not None else None
    if attempt is None or refusal is None:
        if attempt is not None and attempt.cancelled is not None and attempt.cancelled_by_caller:
            call.state, call.ended, call.ended_by = CallState.CANCELLED, attempt.cancelled, Side.CALLER
            return
        call.state = CallState.FAILED
        call.ended = call.last_seen
        warn(call, "no-final-answer", "No final answer to the INVITE was seen: the call ends with its last packet.")
        return
    call.sip_status, call.sip_reason = refusal.status, refusal.reason
    call.ended = refusal.time
    if refusal.status == 487:
        call.state, call.ended_by = CallState.CANCELLED, Side.CALLER
        if attempt.cancelled is None:
            warn(call, "cancel-not-seen", "The INVITE was terminated (487), but no CANCEL was seen.")
        else:
            call.ended = min(attempt.cancelled, refusal.time)
        return
    call.state = CallState.FAILED if 500 <= refusal.status < 600 else CallState.REFUSED
    call.ended_by = Side.CALLEE if refusal.status in BY_THE_CALLEE else None


def _warn_of_gaps(progress: CallProgress) -> None:
    """Say which messages the conclusion had to do without."""
    call = progress.call
    if not progress.invited:
        warn(call, "invite-not-seen", "The INVITE was not seen: the call may have begun before its first packet here.")
        if call.ringing is None and call.answered is None:
            warn(call, "sides-assumed", "Who called whom was not seen: the first to send a request counts as caller.")
    completed = call.state in (CallState.COMPLETED, CallState.INCOMPLETE)
    if completed and call.answered is None:
        warn(call, "answer-not-seen", "The answer to the INVITE was not seen: when the call was answered is not known.")

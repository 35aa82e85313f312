"""The decision trace of a call: why it was recorded as it was.

In: steps as they are decided. Out: `Call.trace`, in order of decision, at most MAX_STEPS long; the last step then
counts what was left out. Codes are stable and kebab-case, texts are for people.
"""

from recorder.model import Call, TraceEvent, Warning_

MAX_STEPS = 200
MAX_WARNINGS = 32
FULL = "trace-full"


def note(call: Call, time: int, packet: int, code: str, text: str) -> None:
    """Append a step, or count it where the trace is full."""
    trace = call.trace
    if len(trace) < MAX_STEPS - 1:
        trace.append(TraceEvent(time, packet, code, text))
        return
    left_out = 1
    if len(trace) == MAX_STEPS:
        left_out += int(trace.pop().text.partition(" ")[0])
    trace.append(TraceEvent(time, packet, FULL, f"{left_out} more steps left out"))


def warn(call: Call, code: str, text: str) -> None:
    """Add a warning, once for each code."""
    if len(call.warnings) < MAX_WARNINGS and all(known.code != code for known in call.warnings):
        call.warnings.append(Warning_(code, text))

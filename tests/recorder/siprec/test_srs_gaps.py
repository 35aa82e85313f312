"""What nobody recorded between two sessions of a call is said, whether the old session was known to be over or not."""

import asyncio

import pytest

from recorder.model import Call
from recorder.siprec.port_ledger import name_of
from recorder.siprec.received import read
from recorder.siprec.srs_gaps import CODE, say_missing, times
from tests.srs_lab import CALL, SECOND, START, SrsLab, metadata, run


@pytest.fixture
def lab(tmp_path):
    return SrsLab(tmp_path / "out")


def both_speak(lab, session, seconds, **how):
    for place in (0, 1):
        lab.speak(session, place, seconds, value=0x90 + 16 * place, **how)


def interrupted(recording):
    return [warning.text for warning in recording.document.warnings if warning.code == CODE]


def handed_over(lab, after, first_to_go):
    """A call goes on in a second session that begins `after` s; what is said of a gap. `first_to_go`: how the first
    session ends later on."""

    async def script(lab):
        lab.after(0.2)
        old = lab.record()
        both_speak(lab, old, 4.0)
        lab.after(after)
        new = lab.record(call_id="rs-2@src")
        both_speak(lab, new, 4.0, ssrc=90)
        lab.after(4.5)
        first_to_go(old)
        lab.bye(new)
        lab.after(8)

    (recording,) = run(lab, script)
    return interrupted(recording)


def test_a_client_that_is_started_again_goes_on_in_a_new_session_and_the_time_between_is_named(lab):
    (text,) = handed_over(lab, 7.0, lab.lose)
    assert times([(START + 4_180_000_000, START + 7_200_000_000)]) in text


def test_a_second_server_that_takes_over_at_once_leaves_nothing_to_be_said(lab):
    assert handed_over(lab, 4.2, lab.bye) == []


def test_sessions_that_carry_a_call_side_by_side_leave_no_gap_where_one_falls_silent(lab):
    async def script(lab):
        lab.after(0.2)
        one = lab.record()
        two = lab.record(call_id="rs-2@src")
        both_speak(lab, one, 4.0)
        both_speak(lab, two, 12.0, ssrc=90)
        lab.after(13)
        lab.bye(one)
        lab.bye(two)
        lab.after(8)

    (recording,) = run(lab, script)
    assert interrupted(recording) == []


def test_what_is_missing_stands_beside_what_was_said_before():
    call = Call(0, "call@host", START, 0, 0)
    period = (START + SECOND, START + 3 * SECOND)
    say_missing(call, "The recorder did not run", [period])
    say_missing(call, "No recording session carried the call", [period])
    say_missing(call, "Nothing at all", [])
    (warning,) = call.warnings
    assert warning.text == (
        f"The recorder did not run {times([period])}: what was said then is missing. "
        f"No recording session carried the call {times([period])}: what was said then is missing."
    )


def test_a_call_that_a_bye_without_a_body_ended_before_a_kill_is_whole_after_it(tmp_path):
    first = SrsLab(tmp_path / "out")

    async def before(lab):
        session = lab.record()
        both_speak(lab, session, 6)
        lab.after(6)
        lab.bye(session)
        lab.kill()

    asyncio.run(before(first))

    async def after(lab):
        lab.after(20)
        assert lab.active == []

    (recording,) = run(SrsLab(tmp_path / "out", now=first.now + 4 * SECOND), after)
    assert (recording.document.state, recording.document.warnings) == ("completed", ())
    assert [each.what for each in read(recording.directory)] == ["INVITE", "BYE"]


def test_a_call_whose_bye_came_late_before_a_kill_lacks_nothing_where_later_audio_of_others_is_kept(tmp_path):
    first = SrsLab(tmp_path / "out")

    async def before(lab):
        one = lab.record()
        other = lab.record(said=metadata(session="b3RoZXJvdGhlcm90aGVyb3Q="), call_id="rs-2@src")
        both_speak(lab, one, 4)
        both_speak(lab, other, 9, ssrc=90)
        lab.after(4.6)  # the BYE was lost, and is sent again
        lab.bye(one)
        lab.after(4.4)
        lab.kill()

    asyncio.run(before(first))

    async def after(lab):
        lab.after(70)

    recordings = run(SrsLab(tmp_path / "out", now=first.now + 4 * SECOND), after)
    told = {each.document.state: each.codes for each in recordings}
    assert told["completed"] == []
    assert {"interrupted", "end-not-seen"} <= set(told["incomplete"])


def test_a_call_that_one_of_two_sessions_left_before_a_kill_waits_for_the_other(tmp_path):
    first = SrsLab(tmp_path / "out")

    async def before(lab):
        one = lab.record()
        two = lab.record(call_id="rs-2@src")
        both_speak(lab, one, 6)
        both_speak(lab, two, 8, ssrc=90)
        lab.after(6)
        lab.bye(one)
        lab.after(2)
        lab.kill()

    asyncio.run(before(first))

    async def after(lab):
        lab.after(15)
        session = lab.record(call_id="rs-3@src")
        both_speak(lab, session, 4, ssrc=120)
        lab.after(4)
        lab.bye(session)

    (recording,) = run(SrsLab(tmp_path / "out", now=first.now + 4 * SECOND), after)
    assert recording.document.state == "completed"
    assert interrupted(recording)


@pytest.mark.parametrize(("before", "after"), [(False, False), (True, False), (False, True)])
def test_what_is_not_to_be_kept_is_there_until_the_call_is_over_and_no_longer(tmp_path, before, after):
    """A call goes on after a kill as it does otherwise; what the settings say in the end holds."""
    first = SrsLab(tmp_path / "out", keep=before)

    async def begin(lab):
        session = lab.record()
        both_speak(lab, session, 6)
        lab.after(6)
        lab.kill()

    asyncio.run(begin(first))

    async def go_on(lab):
        session = lab.record(call_id="rs-2@src")
        both_speak(lab, session, 4, sequence=9000)
        lab.after(4)
        lab.bye(session)

    (recording,) = run(SrsLab(tmp_path / "out", now=first.now + 4 * SECOND, keep=after), go_on)
    assert (recording.document.state, recording.document.callee.name) == ("completed", "Bob")
    assert interrupted(recording)
    names = {path.name for path in recording.directory.iterdir()}
    assert names == {"audio.wav", "call.json", "metadata.xml", *({"siprec.mime"} if after else ())}
    assert [each.what for each in read(recording.directory)] == (["INVITE", "INVITE", "BYE"] if after else [])


def test_a_session_that_was_accepted_and_not_noted_when_the_server_was_killed_is_missing_and_said(lab):
    taken = {name_of(CALL): START - 2 * SECOND, name_of("another"): START - 3 * SECOND}
    lab.calls.taken_before(taken)

    async def script(lab):
        lab.after(1)
        session = lab.record()
        assert set(lab.ports.names.values()) == {CALL}
        both_speak(lab, session, 4)
        lab.after(5)
        lab.bye(session)
        lab.after(8)

    (recording,) = run(lab, script)
    (text,) = interrupted(recording)
    assert text.startswith("The recorder was killed with nothing noted of the call")
    assert times([(START - 2 * SECOND, START + SECOND)]) in text


def killed_in_a_call(out):
    """A server that was killed 6 s into a call of which both sides speak."""
    first = SrsLab(out)

    async def before(lab):
        session = lab.record()
        both_speak(lab, session, 6)
        lab.after(6)
        lab.kill()

    asyncio.run(before(first))
    return first


def test_a_call_that_was_noted_before_a_kill_is_not_said_to_be_unnoted(tmp_path):
    killed_in_a_call(tmp_path / "out")
    second = SrsLab(tmp_path / "out", taken_before={name_of(CALL): START})
    assert [each.key for each in second.calls._calls.values()] == [CALL]

    async def after(lab):
        lab.after(70)  # nobody comes: the call is over
        session = lab.record(call_id="rs-2@src")
        lab.after(4)
        lab.bye(session)

    for recording in run(second, after):
        assert "nothing noted" not in " ".join(interrupted(recording))


def test_a_side_that_is_not_heard_any_more_after_a_kill_is_said_to_be_missing(tmp_path):
    first = killed_in_a_call(tmp_path / "out")

    async def after(lab):
        session = lab.record(call_id="rs-2@src")
        lab.speak(session, 0, 4, sequence=9000)
        lab.after(4)
        lab.bye(session)

    (recording,) = run(SrsLab(tmp_path / "out", now=first.now + 4 * SECOND), after)
    assert [stream.participant for stream in recording.document.streams] == ["caller", "callee", "caller"]
    assert "No audio of the callee came from" in " ".join(interrupted(recording))
    assert "No audio of the caller" not in " ".join(interrupted(recording))


def test_a_side_that_is_never_heard_in_the_only_session_is_said_once(lab):
    async def script(lab):
        session = lab.record()
        lab.speak(session, 0, 4)
        lab.after(4.5)
        lab.bye(session)
        lab.after(8)

    (recording,) = run(lab, script)
    assert recording.codes == ["one-way"]


@pytest.mark.parametrize("gap", [0.1, 0.5, 0.98])
def test_a_session_that_takes_over_soon_after_another_fell_silent_is_heard_from_its_first_packet(lab, gap):
    """The first is not known to be over: its client is gone without a word."""

    async def script(lab):
        lab.after(0.2)
        old = lab.record()
        both_speak(lab, old, 4.0)
        lab.after(4.0 + gap)
        new = lab.record(call_id="rs-2@src")
        both_speak(lab, new, 6.0, ssrc=90)
        lab.after(6.5)
        lab.lose(old)
        lab.bye(new)
        lab.after(8)

    (recording,) = run(lab, script)
    told = sorted((stream.participant, stream.packets) for stream in recording.document.streams)
    assert told == [("callee", 200), ("callee", 300), ("caller", 200), ("caller", 300)]
    samples = recording.samples()
    assert [int((samples[:, channel] != 0).sum()) for channel in (0, 1)] == [80_000, 80_000]
    assert bool(interrupted(recording)) is (gap >= 0.5)

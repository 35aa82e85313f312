"""Where audio stands and what streams have shown survives in a small file that is always whole."""

import json
from dataclasses import replace
from uuid import UUID

import pytest

from capture.address import Endpoint
from recorder import checkpoint, kept_figures
from recorder.checkpoint import Checkpoint, CheckpointError, TrackPlace
from recorder.kept_figures import Part
from recorder.model import Digit, Side
from recorder.streams import Listening
from tests.calls import START, stream

STATE = Checkpoint(
    id=UUID(int=7),
    call_id="lone \udcff surrogate@host",
    call_started=START,
    listening=Listening.COUNTED,
    tags=("sales",),
    audio_started=START + 1,
    tracks=(TrackPlace("audio.wav", 8000, 0, (0, 1)), TrackPlace("track-1.pcm", 16000, 1, (1,))),
    streams=(stream(), stream(Side.CALLEE)),
    parts=((Part(5, START), Part(6, START + 1)), ()),
    digits=(Digit(START + 2, Side.CALLER, "5", 80, "rfc4733"),),
    last_media=START + 3,
    caller=Endpoint(0, 0xFFFF_0A00_0001, 5060),
    interruptions=((START, START + 9),),
)


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    checkpoint.save(tmp_path, STATE)
    assert checkpoint.load(tmp_path) == STATE


def test_the_newest_one_counts(tmp_path):
    checkpoint.save(tmp_path, Checkpoint(UUID(int=7), None, START, Listening.HEARD))
    checkpoint.save(tmp_path, STATE)
    assert checkpoint.load(tmp_path) == STATE
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.FILE]


def test_what_is_none_is_no_checkpoint(tmp_path):
    assert checkpoint.load(tmp_path) is None
    checkpoint.save(tmp_path, STATE)
    whole = (tmp_path / checkpoint.FILE).read_bytes()
    for cut in range(0, len(whole), 7):
        (tmp_path / checkpoint.FILE).write_bytes(whole[:cut])
        assert checkpoint.load(tmp_path) is None
    for other in (b"[]", b"7", b'{"version": 2}', b"\xff", whole.replace(b'"version":1', b'"version":9')):
        (tmp_path / checkpoint.FILE).write_bytes(other)
        assert checkpoint.load(tmp_path) is None


@pytest.mark.parametrize("name", ["../audio.wav", "/etc/passwd", ".hidden"])
def test_a_file_elsewhere_is_never_opened(tmp_path, name):
    checkpoint.save(tmp_path, STATE)
    data = (tmp_path / checkpoint.FILE).read_text(encoding="utf-8", errors="surrogatepass")
    (tmp_path / checkpoint.FILE).write_text(data.replace("audio.wav", name), encoding="utf-8", errors="surrogatepass")
    assert checkpoint.load(tmp_path) is None


def test_a_disk_that_refuses_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be written"):
        checkpoint.save(tmp_path / "gone", STATE)


def test_one_that_an_older_release_wrote_is_read_and_goes_on_with_its_own_numbers(tmp_path):
    checkpoint.save(tmp_path, STATE)
    value = json.loads((tmp_path / checkpoint.FILE).read_bytes())
    del value["parts"]
    (tmp_path / checkpoint.FILE).write_text(json.dumps(value))
    state = checkpoint.load(tmp_path)
    assert state == replace(STATE, parts=())
    assert checkpoint.revised(state, kept_figures.read(tmp_path)).streams == STATE.streams

"""What is kept of the clock for the next process survives any content of its file."""

from recorder import clock_memory


def test_it_is_read_back(tmp_path):
    clock_memory.keep(tmp_path, -7)
    assert clock_memory.recall(tmp_path) == -7


def test_garbage_is_as_nothing(tmp_path):
    for content in (b"", b"\xff", b"[]", b'{"base": 3}', b'{"boot": "", "base": 3}'):
        (tmp_path / clock_memory.FILE).write_bytes(content)
        assert clock_memory.recall(tmp_path) is None

"""Legal holds."""

import threading

import pytest

from recorder.legal_hold import FILE, Hold, HoldError, frozen, hold, holds, release

AT = "2026-03-01T09:15:02.000000Z"


def put(out, *identifiers: str, reason: str = "lawsuit") -> list[str]:
    return hold(out, list(identifiers), at=AT, by="Zoë", reason=reason)


def test_a_hold_stands_until_it_is_released(tmp_path):
    assert holds(tmp_path) == {}
    assert put(tmp_path, "a", "b") == ["a", "b"]
    assert holds(tmp_path) == {"a": Hold("a", AT, "Zoë", "lawsuit"), "b": Hold("b", AT, "Zoë", "lawsuit")}
    assert release(tmp_path, ["b", "c"], at=AT, by="Zoë", reason="settled") == ["b"]
    assert list(holds(tmp_path)) == ["a"]
    assert put(tmp_path, "b") == ["b"]


def test_holding_twice_says_nothing_new_but_another_reason_does(tmp_path):
    put(tmp_path, "a")
    assert put(tmp_path, "a") == []
    assert put(tmp_path, "a", reason="audit") == ["a"]
    assert holds(tmp_path)["a"].reason == "audit"


def test_the_file_tells_all_that_ever_happened(tmp_path):
    put(tmp_path, "a")
    before = (tmp_path / FILE).read_bytes()
    release(tmp_path, ["a"], at=AT, by="me", reason="over\nand out")
    after = (tmp_path / FILE).read_bytes()
    assert after.startswith(before)
    assert after.count(b"\n") == 2


def test_what_a_crash_left_of_a_line_is_no_hold(tmp_path):
    put(tmp_path, "a")
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"at": "2026')
    assert list(holds(tmp_path)) == ["a"]
    put(tmp_path, "b")
    assert list(holds(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize(
    "line", [b"nonsense", b"[]", b'{"action": "hold", "id": 7}', b'{"action": "burn"}', b"\xff", b""]
)
def test_a_damaged_file_is_an_error_and_no_empty_one(tmp_path, line):
    put(tmp_path, "a")
    with (tmp_path / FILE).open("ab") as file:
        file.write(line + b"\n")
    for read in (holds, lambda out: put(out, "b"), lambda out: frozen(out).__enter__()):
        with pytest.raises(HoldError, match=r"holds\.jsonl: line 2 is no hold; mend it, until then nothing is deleted"):
            read(tmp_path)


def test_what_cannot_be_read_is_said(tmp_path):
    (tmp_path / FILE).mkdir()
    with pytest.raises(HoldError, match="cannot read"):
        holds(tmp_path)
    with pytest.raises(HoldError, match="cannot write"):
        put(tmp_path, "a")
    with pytest.raises(HoldError, match="cannot open"), frozen(tmp_path):
        pass


def test_no_hold_is_put_while_somebody_deletes(tmp_path):
    done = threading.Event()

    def late() -> None:
        put(tmp_path, "late")
        done.set()

    thread = threading.Thread(target=late)
    with frozen(tmp_path) as standing:
        thread.start()
        assert not done.wait(0.2)
        assert dict(standing) == {}
    assert done.wait(10)
    thread.join()
    assert list(holds(tmp_path)) == ["late"]

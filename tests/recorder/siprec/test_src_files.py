"""Certificates and users of our recording client are read once, while they may still be read."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from capture.live import SourceCounters
from recorder.sip_ua.listen import parse_listen
from recorder.sip_ua.tls import TlsError, TlsFiles
from recorder.siprec.src_decision import Instance, Server, SrcDecision
from recorder.siprec.src_files import read_files
from recorder.siprec.src_service import SrcService, SrcTold
from recorder.siprec.src_settings import SrcSettings
from recorder.siprec.users import UsersError
from tests.certificates import address, authority


@pytest.fixture
def settings(tmp_path: Path) -> SrcSettings:
    certificate, key = authority(tmp_path).sign("src", address("127.0.0.1"))
    users = tmp_path / "users"
    users.write_text("srs:secret\n")
    users.chmod(0o600)
    return SrcSettings(
        usual=Instance((Server("sip:127.0.0.1:9"),)),
        listen=(parse_listen("udp:127.0.0.1:0"),),
        sockets={"inside": (parse_listen("tls:127.0.0.1:0"),)},
        tls=TlsFiles(certificate=certificate, key=key),
        allow_users_file=users,
    )


class Silence:
    """A source in which nothing ever comes."""

    name, realm, stamped_here, ended = "silence", 0, True, False

    def poll(self, timeout: float) -> None:
        time.sleep(timeout)

    def counters(self) -> SourceCounters:
        return SourceCounters(0, 0, 0, 0, up=True, note=None)

    def close(self) -> None:
        """There is nothing to close."""


def test_files_that_were_read_are_not_read_again_when_the_sockets_are_opened(settings: SrcSettings):
    files = read_files(settings)
    assert files.users == {"srs": "secret"}
    for path in (settings.tls.key, settings.tls.certificate, settings.allow_users_file):
        assert path is not None
        path.unlink()
    failures: list[BaseException] = []
    src = SrcService(
        settings, lambda _: SrcDecision(False, ()), SrcTold(failed=failures.append), files=files
    )  # fmt: skip
    src.start(Silence())  # type: ignore[arg-type]
    try:
        assert any(each.startswith("tls:") for each in src.listening)
    finally:
        src.close()
    assert failures == []


def test_files_that_cannot_be_read_are_told_of_before_anything_is_opened(settings: SrcSettings, tmp_path: Path):
    with pytest.raises(UsersError, match="nobody"):
        read_files(replace(settings, allow_users_file=tmp_path / "nobody.txt"))
    assert settings.tls.key is not None
    settings.tls.key.unlink()
    with pytest.raises(TlsError):
        read_files(settings)
    without = replace(settings, sockets={}, tls=TlsFiles(), allow_users_file=None)
    assert read_files(without).users is None

"""A telephone of PJSIP's that answers each call and records its media lines: `pjsua_recorder.py DIRECTORY PORT`.

Runs in a Python that has the package pjsua2-python. Out: line0.wav, line1.wav... in the directory, until SIGTERM.
"""

import signal
import sys
from typing import Any

import pjsua2 as pj  # type: ignore[import-not-found]

OUT, PORT = sys.argv[1], int(sys.argv[2])
RATE = 8000
LINES = 2


class Answered(pj.Call):  # type: ignore[misc]
    """A call, and what writes its lines down."""

    def __init__(self, account: Any, number: int) -> None:
        super().__init__(account, number)
        self.recorders: dict[int, Any] = {}

    def onCallMediaState(self, _: Any) -> None:  # noqa: N802 - pjsua2 calls it so
        told = self.getInfo()  # its list of media goes with it
        for media in told.media:
            # A line that only sends to us is to PJSIP one that the other side holds.
            hears = media.status in (pj.PJSUA_CALL_MEDIA_ACTIVE, pj.PJSUA_CALL_MEDIA_REMOTE_HOLD)
            if hears and media.type == pj.PJMEDIA_TYPE_AUDIO and media.index not in self.recorders:
                recorder = self.recorders[media.index] = pj.AudioMediaRecorder()
                recorder.createRecorder(f"{OUT}/line{media.index}.wav")
                self.getAudioMedia(media.index).startTransmit(recorder)

    def onCallState(self, _: Any) -> None:  # noqa: N802
        if self.getInfo().state == pj.PJSIP_INV_STATE_DISCONNECTED:
            self.recorders.clear()


class Phone(pj.Account):  # type: ignore[misc]
    """Takes every call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Answered] = []

    def onIncomingCall(self, told: Any) -> None:  # noqa: N802
        call = Answered(self, told.callId)
        self.calls.append(call)
        answer = pj.CallOpParam()
        answer.statusCode, answer.opt.audioCount, answer.opt.videoCount = 200, LINES, 0
        call.answer(answer)


def main() -> None:
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    endpoint = pj.Endpoint()
    endpoint.libCreate()
    settings = pj.EpConfig()
    settings.medConfig.clockRate = settings.medConfig.sndClockRate = RATE
    settings.medConfig.noVad = True
    endpoint.libInit(settings)
    way = pj.TransportConfig()
    way.port, way.boundAddress, way.publicAddress = PORT, "127.0.0.1", "127.0.0.1"
    endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, way)
    endpoint.transportCreate(pj.PJSIP_TRANSPORT_TCP, way)
    endpoint.libStart()
    endpoint.audDevManager().setNullDev()
    account = pj.AccountConfig()
    account.idUri = f"sip:rec@127.0.0.1:{PORT}"
    account.mediaConfig.transportConfig.boundAddress = "127.0.0.1"
    account.mediaConfig.transportConfig.publicAddress = "127.0.0.1"
    phone = Phone()
    phone.create(account)
    while not ended:
        endpoint.libHandleEvents(50)
    phone.calls.clear()
    phone.shutdown()
    endpoint.libDestroy()


if __name__ == "__main__":
    main()

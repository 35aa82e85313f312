"""Where the messages of SRCs go: a file in the working directory of each call that they are about.

In: calls in progress, messages of their recording sessions. Out: `received.ReceivedFile`s, which stay beside the
recordings or not; warnings of calls that lack something. It lives in the engine's thread and never raises: a disk that
refuses is told of.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from secrets import token_hex

from recorder.model import Call
from recorder.siprec.received import Received, ReceivedError, ReceivedFile
from recorder.trace import warn


class KeptMessages:
    """The files of all calls."""

    def __init__(self, *, stay: bool, trouble: Callable[[str], None]) -> None:
        """`stay`: beside the recordings, once calls are over. `trouble` takes sentences about a disk that refuses."""
        self._stay = stay
        self._trouble = trouble
        self._files: dict[int, ReceivedFile] = {}
        """By `Call.index`."""

    def open(self, call: Call, directory: Path, session: str) -> ReceivedFile:
        """The file of a call, gone on with where there is one from an earlier run. `session`: its `session_id`."""
        file = self._files.get(call.index)
        if file is None:
            file = self._files[call.index] = ReceivedFile(directory, token_hex(16), session, stays=self._stay)
        return file

    def write(
        self, call: Call, directory_of: Callable[[Call], Path], session: str, messages: Sequence[Received]
    ) -> None:
        """Keep messages of a call that has begun."""
        try:
            for message in messages:
                self.open(call, directory_of(call), session).add(message)
        except (ReceivedError, KeyError) as error:
            warn(call, "received-cut", "What the SRC sent could not be kept: the disk refused.")
            self._trouble(str(error))

    def end(self, call: Call) -> None:
        """A call is over."""
        file = self._files.pop(call.index, None)
        if file is not None:
            file.close()
            if file.left_out:
                warn(call, "received-cut", f"{file.left_out} messages of the SRC found no room beside the recording.")

"""One interface of a ring source: its sockets, and what becomes of them when the interface goes away and comes back.

In: a name and the source's options. Out: sockets whose rings the source walks, and whether packets can come.

That an interface goes down and up again needs nothing. When it is deleted and made anew, a single socket is bound
again, which needs no privileges. Sockets that share an interface (PACKET_FANOUT) cannot be: new ones are made, and
where the process may no longer do so, a spare socket from its beginning takes over alone.
"""

from dataclasses import dataclass

from capture.interface import ANY, Interface, InterfaceTable, framing
from capture.libpcap import Instruction, library
from capture.live import LiveCaptureError
from capture.nic_clock import FAR_NS, NicClock, open_nic_clock
from capture.packet_filter import compile_filter, default_expression
from capture.ring_socket import RingShape, RingSocket

_EVERYTHING = "greater 0"
"""A tcpdump expression that holds for every frame."""


@dataclass(frozen=True, slots=True)
class RingOptions:
    """How a ring source captures. Sizes are in octets."""

    expression: str | None = None
    """A tcpdump expression for the kernel; None: all that may carry SIP or RTP; "": everything."""
    excluded: str = ""
    """A tcpdump expression of what never comes, whatever else holds, because another source takes it."""
    promiscuous: bool = False
    """Frames for others too: what a mirror port sends."""
    outgoing: bool = True
    """What the machine itself sends on the interface too."""
    sockets: int = 1
    """Per interface; the kernel fills several at once where its packets come in on several processors."""
    ring_size: int = 128 << 20
    """Per interface; what comes while the reader is busy waits there."""
    block_size: int = 256 << 10
    retire_ms: int = 32
    """The last packets before a silence are handed over after one to two times this."""
    batch_rows: int = 65_536
    """Most packets of a batch."""
    pace: float = 0.02
    """Least seconds between two batches: packets wait in the ring meanwhile, and batches are fewer and larger."""
    hardware_time: bool = True
    """Use the network card's stamps where it gives any and its clock tells the machine's time."""


class RingPort:
    """An interface and its sockets."""

    def __init__(self, name: str, options: RingOptions, table: InterfaceTable) -> None:
        """Make the sockets; they get nothing before `open`. Raises `LiveCaptureError`."""
        found = None if name == ANY else table.require(name)
        self.name = name
        self.framing = framing(found)
        self.is_loopback = found is not None and found.is_loopback
        self.up = found is None or found.running
        self.replaced = False
        """The interface was made anew, and its sockets do not listen to it yet."""
        self._note = ""
        self._options = options
        self._index = 0 if found is None else found.index
        self._filter: tuple[Instruction, ...] = ()
        self._compile_filter()
        blocks = max(options.ring_size // options.sockets // options.block_size, 4)
        self.shape = RingShape(options.block_size, blocks, options.retire_ms)
        self.sockets: list[RingSocket] = []
        self._spare: RingSocket | None = None
        self._clock: NicClock | None = None
        try:
            self.sockets = self._make_sockets(options.sockets)
            if options.sockets > 1:
                self._spare = RingSocket(name, cooked=self.framing.cooked)
        except BaseException:
            self.close()
            raise

    def open(self) -> None:
        """Listen. Raises `LiveCaptureError`."""
        try:
            self._listen(self._index)
        except OSError as error:
            raise LiveCaptureError(
                f"{self.name}: cannot be listened to ({error.strerror}). {self._advice()}"
            ) from error
        if self._options.hardware_time and self.name != ANY:
            self._clock, _ = open_nic_clock(self.name)
            for each in self.sockets:
                each.use_hardware_time(self._clock is not None)

    @property
    def notes(self) -> list[str]:
        """Sentences for the operator."""
        clock = "network card's" if self._clock is not None else "kernel's"
        notes = [f"{self.name}: times are the {clock}."]
        if not self.up:
            notes.append(f"{self.name} is down or gone.")
        if self._note:
            notes.append(self._note)
        return notes

    def look(self, table: InterfaceTable) -> None:
        """See whether the interface is up, the same one, and its clock right. Never raises."""
        try:
            found = None if self.name == ANY else table.find(self.name)
        except OSError:
            return
        if self.name != ANY:
            self.replaced = found is not None and found.index != self._index
            self.up = found is not None and found.running and not self.replaced
        self._check_clock()

    def reopen(self, table: InterfaceTable) -> None:
        """Listen to the interface that has taken the old one's place; `sockets` may be others then. Never raises."""
        self.replaced = False
        try:
            found = table.find(self.name)
            if found is not None:
                self._reopen(found)
        except (OSError, LiveCaptureError) as error:
            self._note = f"{self.name} was made anew and cannot be listened to ({error}). Start the service again."

    def clear_error(self, descriptor: int) -> None:
        """Forget the error that woke a poll, which would wake it again and again."""
        for each in self.sockets:
            if each.fileno() == descriptor:
                each.clear_error()

    def close(self) -> None:
        """Let go of the sockets."""
        for each in self.sockets:
            each.close()
        if self._spare is not None:
            self._spare.close()
        if self._clock is not None:
            self._clock.close()

    def _compile_filter(self) -> None:
        """A filter that was asked for must be had; the one by default is left out where there is no libpcap."""
        expression, excluded = self._options.expression, self._options.excluded
        if expression is None and not excluded and library() is None:
            self._note = "There is no libpcap, so nothing is filtered in the kernel."
        elif expression is None or expression.strip() or excluded:
            asked = default_expression() if expression is None else expression.strip() or _EVERYTHING
            self._filter = compile_filter(asked, self.framing.link_type, excluded).instructions

    def _make_sockets(self, count: int) -> list[RingSocket]:
        """Sockets with rings; none is left open where one fails."""
        made: list[RingSocket] = []
        try:
            for _ in range(count):
                made.append(RingSocket(self.name, cooked=self.framing.cooked))
                made[-1].allocate(self.shape)
        except BaseException:
            for each in made:
                each.close()
            raise
        return made

    def _listen(self, index: int) -> None:
        """Bind all sockets. They let nothing through until all share the interface, so that nothing comes twice."""
        if self._options.promiscuous and self.name != ANY:
            self.sockets[0].join_promiscuous(index)
        group = None
        for each in self.sockets:
            if self.is_loopback or not self._options.outgoing:
                each.ignore_outgoing()
            each.bind(index)
            if len(self.sockets) > 1:
                group = each.join(group)
        for each in self.sockets:
            each.let_through(self._filter)

    def _reopen(self, found: Interface) -> None:
        if framing(found) != self.framing:
            raise LiveCaptureError("its frames are of another kind")
        if len(self.sockets) > 1:
            old = self.sockets
            try:
                self.sockets = self._make_sockets(len(old))
            except LiveCaptureError:
                if self._spare is None:
                    raise
                self._spare.allocate(self.shape)
                self.sockets, self._spare = [self._spare], None
            for each in old:
                each.close()
        self._drop_clock()
        self._listen(found.index)
        self._index = found.index
        self.up = found.running
        self._note = ""

    def _check_clock(self) -> None:
        """Go over to the kernel's time when the card's clock has strayed."""
        if self._clock is None:
            return
        try:
            offset = abs(self._clock.offset_ns())
        except OSError:
            offset = FAR_NS + 1
        if offset > FAR_NS:
            self._drop_clock()
            self._note = f"{self.name}: the network card's clock went {offset / 1e9:.3f} s off and is no longer used."

    def _drop_clock(self) -> None:
        """From now on, times are the kernel's."""
        if self._clock is None:
            return
        self._clock.close()
        self._clock = None
        for each in self.sockets:
            each.use_hardware_time(False)

    def _advice(self) -> str:
        if len(self.sockets) > 1:
            return "Bring it up first: several sockets can share an interface only then; or ask for one."
        return "See that it exists and is an interface of this machine."

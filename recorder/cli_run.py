"""`spanrec run`: all that the settings ask for in one process, with one store, one catalogue and one status page.

In: spanrec.toml, whose tables say which roles there are: `[capture]` records what crosses interfaces or comes by HEP,
tunnels and watched directories; `[src]` sends the calls of those interfaces to recording servers; `[srs]` takes what
recording clients send. Out: a service that runs until it is told to stop.
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from capture.live import LiveSource
    from capture.media_ports import MediaPorts
    from recorder.cli_src import Rules
    from recorder.document import CallDocument
    from recorder.log import ServiceLog
    from recorder.service_types import Follower
    from recorder.siprec.control import SessionControl
    from recorder.siprec.src_files import SrcFiles
    from recorder.siprec.src_service import SrcService
    from recorder.siprec.srs_files import SrsFiles
    from recorder.siprec.srs_service import SrsService

MEDIA = 200
"""Index of the server's media among the sources."""


@dataclass(frozen=True, slots=True)
class Table:
    """`[capture]`, as far as it is there."""

    values: Mapping[str, Any]

    def text(self, key: str, usual: str = "") -> str:
        """A string."""
        return str(self.values.get(key, usual))

    def path(self, key: str) -> Path | None:
        """A path, None where it is not there."""
        return Path(self.values[key]) if key in self.values else None

    def listed(self, key: str) -> list[str]:
        """Strings."""
        return list(self.values.get(key, ()))

    def number(self, key: str, usual: int) -> int:
        """A whole number."""
        return int(self.values.get(key, usual))

    def truth(self, key: str, *, usual: bool) -> bool:
        """Yes or no."""
        return bool(self.values.get(key, usual))


def run_command(
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="OUT", envvar="SPANREC_OUT", help="Directory of the recordings.",
            show_default="out of spanrec.toml",
        ),
    ] = None,
    user: Annotated[str | None, typer.Option(metavar="NAME", help="Become this user; for a start by root.")] = None,
    sandbox: Annotated[
        bool, typer.Option("--sandbox/--no-sandbox", help="Refuse system calls that a recorder never needs.")
    ] = True,
) -> None:  # fmt: skip
    """Run all that spanrec.toml asks for: [capture], [src] and [srs] together."""
    from recorder import privileges, settings
    from recorder.live_command import enter_sandbox, live_service, rehearse, run_service, serve_status, start_log
    from recorder.warmup import choose_kernel_cache, load_kernels_directly

    values = settings.load(Path.cwd(), os.environ)
    table = Table(values.get("capture", {}))
    store = out or (Path(values["out"]) if "out" in values else None)
    if store is None:
        raise typer.BadParameter("say where recordings go: -o, or out in spanrec.toml")
    interfaces = table.listed("interface")
    if not {"capture", "src", "srs"} & values.keys():
        raise typer.BadParameter("spanrec.toml has none of [capture], [src] and [srs]: there is nothing to run")
    if "src" in values and not interfaces:
        raise typer.BadParameter("[src] needs an interface in [capture] to take calls from")
    user = user or table.values.get("user")
    files = _srs_files(values)  # the key may be for root alone
    client = _client(values)
    if user is not None:
        privileges.become(user)
        choose_kernel_cache()
    if interfaces or table.listed("tunnel"):
        privileges.require(interfaces)
    log = start_log()
    with ExitStack() as stack:
        load_kernels_directly()
        rehearse(log)
        roles = _Roles(log, stack, values, store, files, client)
        roles.open_ports()
        sources, media = _open_captured(table, stack, "src" in values)
        dropped = privileges.drop(user)
        log.logger.info("privileges-dropped", user=dropped.user, capabilities=len(dropped.capabilities))
        store.mkdir(parents=True, exist_ok=True)
        _open_unprivileged(table, store, sources, stack)
        roles.make()
        if roles.srs is not None:
            sources.append(roles.srs.source)
        service = live_service(store, log, _recording(table, roles))
        if roles.src is not None:
            roles.src.overloaded = lambda: service.overloaded
        if roles.srs is not None:
            roles.srs.full, roles.srs.correction = service.why_full, service.correction
            roles.srs.certificate = service.note_certificate
            roles.srs.go_on(store)
        commands = roles.start(media)
        serve_status(
            service,
            table.text("listen", "127.0.0.1:9180"),
            table.path("token_file"),
            table.path("socket"),
            stack,
            log,
            commands,
        )
        if sandbox and table.truth("sandbox", usual=True):
            enter_sandbox(log)
        run_service(service, sources, log, roles.srs.leave if roles.srs is not None else None)


class _Roles:
    """The parts that speak SIP."""

    def __init__(
        self,
        log: "ServiceLog",
        stack: ExitStack,
        values: Mapping[str, Any],
        store: Path,
        files: "SrsFiles | None",
        client: "tuple[Rules, SrcFiles] | None",
    ) -> None:
        self.src: SrcService | None = None
        self.srs: SrsService | None = None
        self.followers: list[Follower] = []
        self.published: Callable[[CallDocument, Path], None] = lambda document, directory: None
        self.recent_media = False
        self._log, self._stack, self._values, self._store = log, stack, values, store
        self._rules: Any = None
        self._ports: MediaPorts | None = None
        self._files = files
        self._client = client

    def open_ports(self) -> None:
        """Make the ports of the server's media, while there are privileges that make them cheaper."""
        if "srs" in self._values:
            from recorder.cli_srs import srs_settings
            from recorder.siprec.srs_service import media_ports

            self._ports = media_ports(srs_settings((), None), MEDIA)
            self._stack.callback(self._ports.close)

    def make(self) -> None:
        """Make those that the settings ask for."""
        from recorder.cli_src import SESSIONS, make_src, open_spool
        from recorder.cli_srs import make_srs, srs_settings
        from recorder.live_command import event_teller

        if self._client is not None:
            self._rules, files = self._client
            tell = event_teller(self._log, self._rules.settings.webhooks, self._stack)
            spool = open_spool(self._rules.settings, self._store, tell)
            kept = self._store / SESSIONS
            self.src, spooling = make_src(
                self._rules, tell, self._log, time.time_ns, spool, recording=True, kept=kept, files=files
            )
            if spooling is not None:
                self.published, self.recent_media = spooling.published, True
            self._stack.callback(self.src.close)
            self.followers.append(self.src.follower)
        if "srs" in self._values:
            asked = srs_settings((), None)
            tell = event_teller(self._log, asked.webhooks, self._stack)
            self.srs = make_srs(asked, tell, self._log, MEDIA, self._ports, self._files)
            self._stack.callback(self.srs.close)
            self.followers.append(self.srs.follower)

    def reload(self) -> None:
        """The settings have been read again."""
        if self._rules is not None:
            self._rules.reload(self._log)

    def start(self, media: "LiveSource | None") -> Any:
        """Open their sockets; gives the operator's commands, None without any role."""
        from recorder.siprec.control import Role
        from recorder.siprec.control_pages import ControlPages
        from recorder.siprec.joint_control import JointControl

        controls: dict[Role, SessionControl] = {}
        if self.src is not None and media is not None:
            controls[Role.SRC] = self.src.start(media)
        if self.srs is not None:
            controls[Role.SRS] = self.srs.start()
            self._log.logger.info("sessions-ready", listening=list(self.srs.listening))
        if not controls:
            return None
        pages = ControlPages(JointControl(controls), self.srs.drain if self.srs is not None else None)
        self._stack.callback(pages.close)
        return pages


def _srs_files(values: Mapping[str, Any]) -> "SrsFiles | None":
    """What the server's files say; None where there is no server."""
    from recorder.cli_srs import srs_settings
    from recorder.siprec.srs_files import read_files

    return read_files(srs_settings((), None)) if "srs" in values else None


def _client(values: Mapping[str, Any]) -> "tuple[Rules, SrcFiles] | None":
    """The client's rules, and what its files say; None where there is no client."""
    from recorder.cli_src import Rules
    from recorder.siprec.src_files import read_files

    if "src" not in values:
        return None
    rules = Rules(None)
    return rules, read_files(rules.settings)


def _open_captured(table: Table, stack: ExitStack, forwarding: bool) -> "tuple[list[LiveSource], LiveSource | None]":
    """What needs privileges: tunnels and rings, and another ring to forward media from."""
    from recorder.cli_capture import Wanted, open_interfaces, open_tunnels
    from recorder.cli_src import forwarding_ring

    tunnels = open_tunnels(table.listed("tunnel"))
    sources: list[LiveSource] = [*tunnels]
    media: LiveSource | None = None
    interfaces = table.listed("interface")
    if interfaces:
        excluded = " or ".join(f"({source.expression})" for source in tunnels)
        expression = table.values.get("filter")
        promiscuous = table.truth("promiscuous", usual=True)
        wanted = Wanted(expression, excluded, promiscuous, table.number("ring_size", 256), table.number("sockets", 1))
        sources.append(open_interfaces(interfaces, wanted, len(sources)))
        if forwarding:
            media = forwarding_ring(interfaces, expression, promiscuous=promiscuous)
            stack.callback(media.close)
    for source in sources:
        stack.callback(source.close)
    return sources, media


def _open_unprivileged(table: Table, store: Path, sources: "list[LiveSource]", stack: ExitStack) -> None:
    from recorder.live_command import open_others

    watched = [Path(each) for each in table.listed("watch")]
    hep = table.values.get("hep")
    stdin = table.truth("stdin", usual=False)
    for other in open_others(hep, table.path("hep_key_file"), watched, stdin, store, len(sources)):
        sources.append(other)
        stack.callback(other.close)


def _recording(table: Table, roles: _Roles) -> Any:
    from recorder.live_command import Recording

    return Recording(
        form=table.text("format", "wav"),
        mono=table.truth("mono", usual=False),
        workers=table.number("workers", 0),
        stop_at=table.text("stop_at", "2%"),
        resume_at=table.text("resume_at", "4%"),
        followers=roles.followers,
        reloaded=roles.reload,
        published=roles.published,
        recent_media=roles.recent_media,
    )

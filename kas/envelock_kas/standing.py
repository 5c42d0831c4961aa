"""How a deployment stands, as its processes tell on their sockets. Nothing here waits for long."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from envelock_ledger.errors import LedgerError
from envelock_ledger.note import Note
from envelock_ledger.remote import LedgerClient
from envelock_ledger.settings import READING_ROLE, socket_path
from envelock_service.metrics import ASK_SECONDS, fetch, status_sockets
from envelock_service.sockets import SocketError, connect, peer_pid

LEDGER, PDP, KAS = "ledger", "pdp", "kas"
PATIENCE_SECONDS = 0.5  # to find out who listens at a socket
_US = 1_000_000

NEXT = {
    "ledger": "see that its disk and its anchor are there and have room; it opens again by itself",
    "custody": "see that the HSM answers and that its PIN file and module are those of [custody]",
    "pdp": "see what it says on stderr; where `envelock up` runs, a dead one is started again",
    "policy": "envelock policy test POLICIES; then see what the PDP says on stderr",
    "issuer": "see that the issuer of [callers] is reachable from here, with its keys",
    "process": "start it: envelock up; one that hangs may be killed, and is started again",
}


class _Part(msgspec.Struct, frozen=True):
    name: str
    state: str
    since: int
    succeeded: int | None
    detail: str


class Told(msgspec.Struct, frozen=True):
    """What a KAS worker or a PDP tells of itself at `/status`."""

    pid: int
    started: int  # unix seconds
    rss_bytes: int
    parts: tuple[_Part, ...] = ()
    custody: str = ""
    epochs: Mapping[str, int] = {}
    missing: tuple[str, ...] = ()
    records: Mapping[str, int] = {}
    refusals: Mapping[str, int] = {}
    unauthenticated: Mapping[str, int] = {}


class Process(msgspec.Struct, frozen=True):
    """A process: `told` is None when it does not answer; then `pid` is who holds its socket."""

    name: str
    socket: str
    pid: int | None
    told: Told | None = None


class Down(msgspec.Struct, frozen=True):
    """Something that keeps releases from working, as one process sees it."""

    process: str
    part: str
    state: str
    since: int | None  # unix seconds
    detail: str
    next: str


class Ledger(msgspec.Struct, frozen=True):
    """What the ledger tells of itself: its numbers and its head."""

    size: int
    root: str  # base64
    checkpoint_age_seconds: float
    queued_bytes: int
    free_bytes: int
    anchor_free_bytes: int
    anchor_on_same_device: bool
    batches: int
    appended: int
    faults: int


class Standing(msgspec.Struct, frozen=True):
    """How the deployment stands."""

    releases: bool
    data: str
    down: tuple[Down, ...]
    processes: tuple[Process, ...]
    ledger: Ledger | None
    custody: str
    epochs: Mapping[str, int]
    records: Mapping[str, int]
    refusals: Mapping[str, int]
    unauthenticated: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Asked:
    process: Process
    ledger: Ledger | None = None
    trouble: str = ""


async def standing(data: Path) -> Standing:
    """Ask every process of the data directory *data*, all at the same time."""
    sockets = {PDP: data, f"{KAS}-0": data} | status_sockets(data)
    sockets = {name: data / "run" / f"status-{name}.sock" for name in sockets}
    asked = await asyncio.gather(
        _ask_ledger(data), *(_ask(name, path) for name, path in sorted(sockets.items()))
    )
    processes = tuple(one.process for one in asked)
    told = [process.told for process in processes if process.told is not None]
    down = _down(asked)
    return Standing(
        releases=not down,
        data=str(data),
        down=down,
        processes=processes,
        ledger=asked[0].ledger,
        custody=next((one.custody for one in told if one.custody), ""),
        epochs=_newest([one.epochs for one in told]),
        records=_sum([one.records for one in told]),
        refusals=_sum([one.refusals for one in told]),
        unauthenticated=_sum([one.unauthenticated for one in told]),
    )


async def _ask(name: str, path: Path) -> _Asked:
    body = await fetch(path, "/status")
    with contextlib.suppress(msgspec.MsgspecError):
        if body is not None:
            told = msgspec.json.decode(body, type=Told)
            return _Asked(Process(name, str(path), told.pid, told))
    return _silent(name, path)


async def _ask_ledger(data: Path) -> _Asked:
    path = socket_path(data, READING_ROLE)
    client = LedgerClient(path, ASK_SECONDS)
    try:
        async with asyncio.timeout(ASK_SECONDS):
            numbers, head = await client.probe(), Note.parse(await client.head())
    except (LedgerError, TimeoutError) as error:
        return _silent(LEDGER, path, str(error))
    finally:
        await client.aclose()
    told = Told(numbers["pid"], numbers["started"], numbers["rss_bytes"])
    ledger = Ledger(
        size=numbers["size"],
        root=head.text.splitlines()[2],
        checkpoint_age_seconds=round(max(0.0, time.time() - numbers["signed_us"] / _US), 1),
        queued_bytes=numbers["queued_bytes"],
        free_bytes=numbers["free_bytes"],
        anchor_free_bytes=numbers["anchor_free_bytes"],
        anchor_on_same_device=bool(numbers["anchor_on_same_device"]),
        batches=numbers["batches"],
        appended=numbers["appended"],
        faults=numbers["faults"],
    )
    return _Asked(Process(LEDGER, str(path), told.pid, told), ledger)


def _silent(name: str, path: Path, trouble: str = "") -> _Asked:
    try:
        with contextlib.closing(connect(path, PATIENCE_SECONDS)) as connected:
            pid = peer_pid(connected)
    except SocketError:
        return _Asked(Process(name, str(path), None), trouble=f"nobody listens at {path}")
    return _Asked(
        Process(name, str(path), pid), trouble=trouble or f"no answer in {ASK_SECONDS:g} s"
    )


def _down(asked: Sequence[_Asked]) -> tuple[Down, ...]:
    """What does not answer, then what those that answer find missing."""
    found = [
        Down(
            one.process.name,
            LEDGER if one.process.name == LEDGER else "process",
            "gone" if one.process.pid is None else "silent",
            None,
            one.trouble,
            NEXT["process"],
        )
        for one in asked
        if one.process.told is None
    ]
    for one in asked:
        parts = one.process.told.parts if one.process.told is not None else ()
        found += [
            Down(
                one.process.name,
                part.name,
                part.state,
                part.since,
                part.detail,
                NEXT.get(part.name, NEXT["process"]),
            )
            for part in parts
            if part.state != "up"
        ]
    return tuple(found)


def _sum(counted: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counted:
        total.update(one)
    return dict(sorted(total.items()))


def _newest(epochs: Sequence[Mapping[str, int]]) -> dict[str, int]:
    newest: dict[str, int] = {}
    for one in epochs:
        for tenant, epoch in one.items():
            newest[tenant] = max(epoch, newest.get(tenant, 0))
    return dict(sorted(newest.items()))

"""The ledger over a real socket: roles, pipelining, lost answers."""

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from ledger.world import SECOND, START_US, entry, fill, hiding, receipt

from envelock_ledger import wire
from envelock_ledger.checkpoint import open_checkpoint
from envelock_ledger.entry import Committed, Fenced, Once, Repeated, Spent
from envelock_ledger.errors import (
    LedgerUnavailableError,
    LedgerUsageError,
    ProofError,
    RecordError,
)
from envelock_ledger.note import VerifierKey
from envelock_ledger.remote import LedgerClient
from envelock_ledger.report import verify_store
from envelock_ledger.serve import Role, Server
from envelock_ledger.store.sqlite import SqliteStore
from envelock_ledger.writer import Writer
from envelock_service.sockets import bind, unbind

ALL = Role("kas", append=True, openings=True, topics=("*",), moves=("*",))
READ = Role("read")
SOON = START_US // SECOND + 60


@asynccontextmanager
async def served(writer: Writer, folder: Path, role: Role) -> AsyncIterator[Path]:
    """The socket of *role*."""
    server = Server(writer, folder)
    path = folder / f"{role.name}.sock"
    bound = bind(path)
    await server.listen(bound, role)
    yield path
    await server.aclose()
    unbind(bound, path)


@asynccontextmanager
async def connected(writer: Writer, folder: Path, role: Role) -> AsyncIterator[LedgerClient]:
    """A client under *role*."""
    async with served(writer, folder, role) as path:
        client = LedgerClient(path, timeout_seconds=5)
        yield client
        await client.aclose()


@pytest.fixture
async def client(writer: Writer, tmp_path: Path) -> AsyncIterator[LedgerClient]:
    """A client that may do everything."""
    async with connected(writer, tmp_path, ALL) as found:
        yield found


async def test_every_outcome_crosses_the_wire(world, client):
    """Committed, repeated, spent, fenced and expired, with receipts that verify."""
    first = replace(hiding("r-1", sub="ann"), once=(Once("n", "d", SOON),))
    again = replace(hiding("r-2", sub="ann"), once=(Once("n", "d", SOON),), repeat="retry")
    outcomes = await client.append(
        [first, again, entry(Once("n", "e", SOON)), entry(fences={"a": 1})]
    )
    late = await client.append([entry(Once("m", None, 5))])

    kinds = [type(o).__name__ for o in [*outcomes, *late]]
    assert kinds == ["Committed", "Repeated", "Spent", "Fenced", "Expired"]
    assert outcomes[2:] == [Spent(1), Fenced("a")]
    assert late[0].name == "m"
    for outcome in outcomes[:2]:
        found = world.verify(receipt(outcome))
        assert (found.fields["id"], found.openings) == ("r-1", {"sub": "ann"})


async def test_every_question_crosses_the_wire(world, client, tmp_path):
    """Fences, find, prove, topic, head, records, snapshot."""
    await client.append([hiding("r-1", sub="ann"), entry(moves={"a": 1}, topic="t")])
    seen = open_checkpoint(await client.head(), world.signer.verifier)
    await client.append([entry(seen=seen.size)])

    assert await client.fences(["a", "b"]) == {"a": 1, "b": 0}
    assert world.verify(await client.find("r-1")).openings == {"sub": "ann"}
    assert await client.find("r-none") is None
    world.verify(await client.prove(2, seen.size)).check_extends(seen.size, seen.root)
    assert [found.index for found in await client.topic("t", 0)] == [2]
    assert len(await client.records(1, 100)) == 3
    await client.snapshot(tmp_path / "copy")
    store = SqliteStore.read(tmp_path / "copy")
    report = verify_store(store, store.checkpoint() or "", world.signer.verifier, None)
    store.close()
    assert report.failed is None
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600


async def test_a_long_snapshot_comes_in_pieces(world, writer, client, tmp_path):
    """A copy larger than one answer arrives whole, and no file is left with the server."""
    for _ in range(8):
        await writer.append([entry(pad="x" * 60_000) for _ in range(5)])

    await client.snapshot(tmp_path / "copy")

    store = SqliteStore.read(tmp_path / "copy")
    report = verify_store(store, store.checkpoint() or "", world.signer.verifier, None)
    store.close()
    assert report.failed is None
    assert (tmp_path / "copy").stat().st_size > 2 << 20
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"copy", "kas.sock", "ledger", "anchor", "secrets"}


async def test_a_snapshot_replaces_nothing(client, tmp_path):
    """An existing file stays."""
    (tmp_path / "copy").write_text("precious")

    with pytest.raises(LedgerUsageError):
        await client.snapshot(tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "precious"


async def test_many_callers_share_frames_and_batches(world, client, writer):
    """A thousand appends at once become few batches, and each caller gets its own receipt."""
    lines = len(world.place.anchor.read_text().splitlines())
    names = [f"c-{number}" for number in range(1000)]

    answers = await asyncio.gather(*(client.append([entry(id=name)]) for name in names))

    for name, [outcome] in zip(names, answers, strict=True):
        assert f'"id":"{name}"'.encode() in receipt(outcome).record
    assert len(world.place.anchor.read_text().splitlines()) - lines < 20
    assert await writer.size() == 1001


async def test_a_malformed_entry_fails_its_own_call_alone(client):
    """Calls that share a frame do not share their errors."""
    good, bad = await asyncio.gather(
        client.append([entry()]),
        client.append([replace(entry(), body=b"{}")]),
        return_exceptions=True,
    )

    assert isinstance(good[0], Committed)
    assert isinstance(bad, RecordError)


async def test_a_call_too_long_for_a_frame_fails_alone(client):
    """Whoever asks too much at once is told; the connection lives on."""
    long, short = await asyncio.gather(
        client.append([entry(pad="x" * 60_000)] * 300),
        client.append([entry()]),
        return_exceptions=True,
    )

    assert isinstance(long, RecordError)
    assert isinstance(short[0], Committed)


async def test_errors_keep_their_kind(client):
    """What the writer raises, the caller gets."""
    with pytest.raises(LedgerUsageError, match="no record 99"):
        await client.prove(99)


def within_reach(path: Path) -> Path:
    """A folder in which everybody may connect to the socket at *path*, as `s`."""
    path.chmod(0o666)
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o711)
    (folder / "s").hardlink_to(path)
    return folder


class TestRoles:
    """What a socket permits."""

    async def test_a_reader_cannot_append(self, writer, tmp_path):
        """The reading role appends nothing."""
        async with connected(writer, tmp_path, READ) as client:
            with pytest.raises(LedgerUsageError, match="may not append"):
                await client.append([entry()])
            assert await writer.size() == 1

    async def test_a_reader_sees_no_openings(self, world, writer, tmp_path):
        """Every answer of the reading role leaves hidden fields hidden."""
        await writer.append([hiding("r-1", sub="ann")])
        await writer.append([replace(entry(), body=hiding("r-2").body)])
        async with connected(writer, tmp_path, READ) as client:
            receipts = [await client.find("r-1"), await client.prove(1)]

        assert [world.verify(found).openings for found in receipts] == [{}, {}]

    async def test_topics_and_moves_belong_to_roles(self, writer, tmp_path):
        """A role touches its own topics and fences."""
        role = Role("pdp", append=True, topics=("policy",), moves=("policy:",))
        refused = [
            entry(topic="key"),
            entry(moves={"key:a": 1}),
            entry(moves={"policy": 1}),
            entry(moves={"policy:acme": 1, "key:a": 1}),
            entry(topic="key", repeat="retry"),
        ]
        async with connected(writer, tmp_path, role) as client:
            for one in refused:
                with pytest.raises(LedgerUsageError, match="may not"):
                    await client.append([one])
            [fine] = await client.append([entry(topic="policy", moves={"policy:acme": 1})])

        assert isinstance(fine, Committed)
        assert await writer.size() == 2

    async def test_a_refused_entry_takes_its_call_with_it(self, writer, tmp_path):
        """One record that the role may not write, and none of the call is written."""
        role = Role("pdp", append=True)
        async with connected(writer, tmp_path, role) as client:
            with pytest.raises(LedgerUsageError):
                await client.append([entry(), entry(topic="key")])

        assert await writer.size() == 1

    async def test_a_repeat_opens_nothing_for_a_role_without_openings(
        self, world, writer, tmp_path
    ):
        """A role that appends but may not see openings gets the first receipt closed."""
        await writer.append([replace(hiding("r-1", sub="ann"), once=(Once("n", "d", SOON),))])
        async with connected(writer, tmp_path, Role("blind", append=True)) as client:
            [outcome] = await client.append([entry(Once("n", "d", SOON))])

        assert isinstance(outcome, Repeated)
        assert world.verify(receipt(outcome)).openings == {}

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can connect as somebody else")
    async def test_another_user_is_hung_up_on(self, writer, tmp_path):
        """Who may connect is decided by the kernel's word, beside the mode of the file."""
        async with served(writer, tmp_path, ALL) as path:
            shown = within_reach(path)
            script = (
                "import os,socket,sys\n"
                "os.setuid(65534)\n"
                "s=socket.socket(socket.AF_UNIX)\n"
                f"s.connect({str(shown / 's')!r})\n"
                "sys.exit(7 if s.recv(1)==b'' else 1)\n"
            )
            process = await asyncio.create_subprocess_exec("python3", "-c", script)

            code = await asyncio.wait_for(process.wait(), 10)
            shutil.rmtree(shown)

        assert code == 7


class TestConnection:
    """What happens to a connection."""

    async def test_a_lost_connection_leaves_the_outcome_unknown_and_is_made_again(
        self, writer, tmp_path
    ):
        """Whoever waits learns it; the next request connects anew."""
        path = tmp_path / "kas.sock"

        async def hang_up(reader: asyncio.StreamReader, other: asyncio.StreamWriter) -> None:
            """Take a request and hang up."""
            await reader.read(4)
            other.close()

        forgetful = await asyncio.start_unix_server(hang_up, path)
        client = LedgerClient(path)
        with pytest.raises(LedgerUnavailableError, match="unknown"):
            await client.append([entry(id="r-lost")])
        forgetful.close()
        async with served(writer, tmp_path, ALL):
            [outcome] = await client.append([entry()])
        await client.aclose()

        assert isinstance(outcome, Committed)

    async def test_nobody_there_is_said_at_once(self, tmp_path):
        """Without a server every request fails, and works once there is one."""
        client = LedgerClient(tmp_path / "none.sock")
        with pytest.raises(LedgerUnavailableError, match="no ledger at"):
            await client.head()
        await client.aclose()

    async def test_an_answer_that_never_comes_is_unknown(self, tmp_path):
        """A server that hangs costs the time-out and no more."""
        bound = bind(tmp_path / "mute")
        client = LedgerClient(tmp_path / "mute", timeout_seconds=0.05)

        with pytest.raises(LedgerUnavailableError, match="in time"):
            await client.append([entry()])
        await client.aclose()
        bound.close()

    async def test_a_closed_client_says_so(self, client):
        """After the end every request fails."""
        await client.aclose()

        with pytest.raises(LedgerUnavailableError):
            await client.head()

    async def test_a_server_that_closes_answers_first(self, world, tmp_path):
        """What was under way is answered, then the connection ends."""
        writer = await world.start()
        async with served(writer, tmp_path, ALL) as path:
            client = LedgerClient(path)
            await client.head()
            waiting = [asyncio.ensure_future(client.append([entry()])) for _ in range(20)]
            await asyncio.sleep(0.002)
        results = await asyncio.gather(*waiting, return_exceptions=True)
        await writer.aclose()
        await client.aclose()

        assert all(
            isinstance(r, LedgerUnavailableError) or isinstance(r[0], Committed) for r in results
        )

    @pytest.mark.parametrize(
        "noise",
        [
            b"GET / HTTP/1.1\r\n\r\n",
            b"\xff\xff\xff\xff",
            (5).to_bytes(4, "big") + b"hello",
            (1).to_bytes(4, "big") + b"\xc0",
            wire.frame([]) + b"\x00\x00\x00\x02\x91\x91",
            wire.frame([]) + b"\x00\x00\x00\x08\x91\x92\x01\x91\xa3\xff\xfe\xfd",
            (4).to_bytes(4, "big") + msgspec.msgpack.encode([[1, ["nope"]]])[:4],
        ],
    )
    async def test_noise_is_hung_up_on(self, writer, tmp_path, noise):
        """Bytes that are no frame end the connection and nothing else."""
        async with served(writer, tmp_path, ALL) as path:
            reader, other = await asyncio.open_unix_connection(str(path))
            other.write(noise)
            await other.drain()
            left = await asyncio.wait_for(reader.read(), 5)
            other.close()
            client = LedgerClient(path)
            head = await client.head()
            await client.aclose()

        assert left == b""
        assert head == await writer.head()

    async def test_frames_may_come_byte_by_byte(self, writer, tmp_path):
        """A frame is complete when its last byte came."""
        async with served(writer, tmp_path, ALL) as path:
            reader, other = await asyncio.open_unix_connection(str(path))
            for byte in wire.frame([(7, wire.Head())]):
                other.write(bytes([byte]))
                await other.drain()
            length = int.from_bytes(await reader.readexactly(4), "big")
            answers = msgspec.msgpack.decode(await reader.readexactly(length), type=wire.Answers)
            other.close()

        assert answers == [(7, wire.Text(await writer.head()))]

    async def test_a_client_that_dies_harms_nobody(self, writer, client, tmp_path):
        """Half a frame, and gone."""
        del client
        raw = socket.socket(socket.AF_UNIX)
        raw.connect(str(tmp_path / "kas.sock"))
        raw.sendall(wire.frame([(1, wire.Head())])[:-3])
        raw.close()
        await asyncio.sleep(0.01)

        assert isinstance((await writer.append([entry()]))[0], Committed)


async def test_a_snapshot_is_of_its_own_connection(writer, tmp_path):
    """A client that asked for none cannot read another's."""
    await fill(writer, 3)
    async with served(writer, tmp_path, ALL) as path:
        first = await asyncio.open_unix_connection(path)
        second = await asyncio.open_unix_connection(path)
        made = await asked(*first, wire.Copy())
        mine = await asked(*first, wire.Chunk(0))
        theirs = await asked(*second, wire.Chunk(0))
        first[1].close()
        second[1].close()

    assert isinstance(made, wire.Numbers)
    assert isinstance(mine, wire.Raw)
    assert isinstance(theirs, wire.Failed)


async def asked(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: wire.Request
) -> wire.Answer:
    """One answer, without a client."""
    writer.write(wire.frame([(7, request)]))
    length = int.from_bytes(await reader.readexactly(4), "big")
    [(number, answer)] = msgspec.msgpack.decode(await reader.readexactly(length), type=wire.Answers)
    assert number == 7
    return answer


def test_a_receipt_of_the_wire_that_is_cut_does_not_verify():
    """Hashes travel joined; a torn one is a short hash, which no proof accepts."""
    torn = wire.WireReceipt(0, b"{}", [], bytes(40), None, b"")
    found = wire.unpack_receipt(torn, "note")

    assert [len(item) for item in found.path] == [32, 8]
    with pytest.raises(ProofError):
        found.verify(VerifierKey("log", bytes(32)))

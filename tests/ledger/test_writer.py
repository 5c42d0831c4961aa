"""The rules of an append, each in a ledger on disk."""

import asyncio
import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger.world import SECOND, START_US, World, body, entry, fill, hiding, place_in, receipt

from envelock_ledger.checkpoint import open_checkpoint
from envelock_ledger.entry import Committed, Entry, Expired, Fenced, Once, Repeated, Spent
from envelock_ledger.errors import LedgerUnavailableError, LedgerUsageError, RecordError
from envelock_ledger.record import parse
from envelock_ledger.writer import Writer

SOON = START_US // SECOND + 60


def fields(outcome):
    """The record of an outcome, parsed."""
    return parse(receipt(outcome).record).fields


async def only(writer: Writer, one: Entry):
    """The outcome of one entry."""
    [outcome] = await writer.append([one])
    return outcome


async def test_a_committed_record_has_a_receipt_that_verifies(world, writer):
    """What was appended is under the signed root, with its openings."""
    outcome = await only(writer, hiding("r-x", sub="ann"))

    found = world.verify(receipt(outcome))

    assert isinstance(outcome, Committed)
    assert (found.index, found.fields["id"], found.openings) == (1, "r-x", {"sub": "ann"})
    assert found.fields["_t"] == START_US


async def test_records_are_chained_and_so_are_those_of_each_tenant(world, writer):
    """`_p` follows every record, `_tp` and `_tq` those of one tenant."""
    outcomes = await writer.append([entry(tn=name) for name in ("acme", "bolt", "acme", "acme")])
    records = [fields(outcome) for outcome in outcomes]
    genesis = await writer.prove(0)
    leaves = [world.verify(genesis).raw, *(receipt(o).record for o in outcomes)]
    hashes = [hashlib.sha256(b"\x00" + raw).hexdigest() for raw in leaves]

    assert [r["_i"] for r in records] == [1, 2, 3, 4]
    assert [r["_p"] for r in records] == hashes[:4]
    assert [r["_tq"] for r in records] == [0, 0, 1, 2]
    assert [r["_tp"] for r in records] == ["0" * 64, "0" * 64, hashes[1], hashes[3]]


async def test_receipts_prove_that_the_log_only_grew(world, writer):
    """With the size that a client saw, its receipt extends that checkpoint."""
    await fill(writer, 7)
    seen = open_checkpoint(await writer.head(), world.signer.verifier)
    await fill(writer, 300)

    outcome = await only(writer, entry(seen=seen.size))
    proven = await writer.prove(3, seen.size)

    world.verify(receipt(outcome)).check_extends(seen.size, seen.root)
    world.verify(proven).check_extends(seen.size, seen.root)


@pytest.mark.parametrize("seen", [0, -1, 10**9])
async def test_a_size_that_never_was_gets_no_proof(writer, seen):
    """A client that saw more than there is gets a receipt without the proof it asked for."""
    outcome = await only(writer, entry(seen=seen))

    assert receipt(outcome).consistency is None


async def test_every_record_can_be_proven_at_every_size(world, writer):
    """Old records are proven from strata and tiles, recent ones from memory."""
    await fill(writer, 1100)

    for index in [0, 1, 254, 255, 256, 257, 511, 512, 767, 1023, 1024, 1099]:
        found = world.verify(await writer.prove(index))
        assert found.index == index


class TestOnce:
    """Names that may be used once."""

    async def test_a_name_without_a_digest_works_once(self, writer):
        """Again is spent, by whatever record, and says which record spent it."""
        first = await only(writer, entry(Once("n", None, SOON)))
        second = await only(writer, entry(Once("n", None, SOON)))

        assert second == Spent(receipt(first).index)
        assert await writer.size() == 2

    async def test_a_name_is_spent_on_one_digest(self, writer):
        """Another digest is spent."""
        first = await only(writer, entry(Once("n", "d1", SOON)))

        assert await only(writer, entry(Once("n", "d2", SOON))) == Spent(receipt(first).index)
        assert await only(writer, entry(Once("n", None, SOON))) == Spent(receipt(first).index)

    async def test_the_same_digest_repeats(self, world, writer):
        """The first record answers again, and the repeat is a record of its own."""
        first = await only(writer, replace(hiding("r-1", sub="ann"), once=(Once("n", "d", SOON),)))
        again = await only(
            writer,
            replace(hiding("again", sub="bob"), once=(Once("n", "d", SOON),), repeat="retry"),
        )
        retry = fields(Committed(await writer.find("again")))

        assert isinstance(again, Repeated)
        assert world.verify(receipt(again)).openings == {"sub": "ann"}
        assert receipt(again).index == receipt(first).index
        assert (retry["_of"], retry["_i"], retry["typ"]) == (1, 2, "retry")
        assert world.verify(await writer.find("again")).openings == {"sub": "bob"}

    async def test_a_repeat_spends_its_unused_names(self, writer):
        """A fresh proof that came with a retry cannot be used again."""
        await only(writer, entry(Once("dec", "d", SOON)))
        again = await only(writer, entry(Once("dec", "d", SOON), Once("proof", None, SOON)))
        once_more = await only(writer, entry(Once("proof", None, SOON)))

        assert isinstance(again, Repeated)
        assert once_more == Spent(1)

    async def test_a_name_first_seen_in_a_repeat_answers_with_the_first_record(self, writer):
        """Whichever of its names a retry brings, the receipt is that of the first record."""
        await only(writer, entry(Once("dec", "d", SOON)))
        await only(writer, entry(Once("dec", "d", SOON), Once("token", "d", SOON), repeat="retry"))

        again = await only(writer, entry(Once("token", "d", SOON)))

        assert isinstance(again, Repeated)
        assert receipt(again).index == 1

    async def test_spent_wins_over_repeated(self, writer):
        """One name that was used otherwise refuses the whole entry."""
        await only(writer, entry(Once("dec", "d", SOON)))
        await only(writer, entry(Once("proof", None, SOON)))

        refused = await only(
            writer, entry(Once("dec", "d", SOON), Once("proof", None, SOON), repeat="retry")
        )

        assert refused == Spent(2)
        assert await writer.size() == 3

    async def test_an_expired_name_is_refused(self, world, writer):
        """Expired beats spent and repeated: a jumping clock revives nothing."""
        await only(writer, entry(Once("n", "d", SOON)))
        world.clock.move(61)

        assert await only(writer, entry(Once("n", "d", SOON))) == Expired("n")
        assert await only(writer, entry(Once("m", None, SOON))) == Expired("m")

    async def test_a_clock_that_jumps_back_revives_nothing(self, world, writer):
        """Sequencing time never decreases, so what expired stays expired."""
        await only(writer, entry(Once("n", None, SOON)))
        world.clock.move(400)
        await only(writer, entry())
        world.clock.move(-400)

        outcome = await only(writer, entry())

        assert fields(outcome)["_t"] == START_US + 400 * SECOND
        assert await only(writer, entry(Once("n", None, SOON))) == Expired("n")

    async def test_names_are_kept_until_they_cannot_be_used(self, world, writer):
        """Up to 120 s after its expiry a name is remembered; for ever when it has none."""
        await writer.append([entry(Once("short", None, SOON)), entry(Once("create", None, None))])
        world.clock.move(60 + 120)
        await only(writer, entry())

        late = SOON + 10_000
        assert await only(writer, entry(Once("short", None, late))) == Spent(1)
        world.clock.move(1000)
        await only(writer, entry())
        assert isinstance(await only(writer, entry(Once("short", None, late))), Committed)
        assert await only(writer, entry(Once("create", None, None))) == Spent(2)

    async def test_a_record_id_works_once(self, writer):
        """The id of a record that exists is spent, by that record."""
        await only(writer, entry(id="r-x"))

        assert await only(writer, entry(id="r-x")) == Spent(1)
        assert (await writer.find("r-x")).index == 1

    async def test_the_id_of_a_repeat_works_once(self, writer):
        """A repeat is a record with its own id, and one whose id exists spends nothing."""
        await only(writer, entry(Once("dec", "d", SOON), id="taken"))

        refused = await only(
            writer,
            entry(Once("dec", "d", SOON), Once("p", None, SOON), id="taken", repeat="retry"),
        )

        assert refused == Spent(1)
        assert isinstance(await only(writer, entry(Once("p", None, SOON))), Committed)


class TestFences:
    """Numbers that must be what the caller's evidence says."""

    async def test_an_unset_fence_is_zero(self, writer):
        """A fence that was never moved has the number 0, and expecting it passes."""
        assert await writer.fences(["a", "b"]) == {"a": 0, "b": 0}
        assert isinstance(await only(writer, entry(fences={"a": 0})), Committed)
        assert await only(writer, entry(fences={"a": 1})) == Fenced("a")

    async def test_a_record_moves_a_fence_by_one(self, writer):
        """Only the next number is accepted, and evidence from before is refused from then on."""
        assert await only(writer, entry(moves={"a": 2})) == Fenced("a")
        assert isinstance(await only(writer, entry(moves={"a": 1})), Committed)
        assert await only(writer, entry(moves={"a": 1})) == Fenced("a")
        assert await only(writer, entry(fences={"a": 0})) == Fenced("a")
        assert isinstance(await only(writer, entry(fences={"a": 1})), Committed)
        assert await writer.fences(["a"]) == {"a": 1}

    async def test_fences_come_first_even_for_repeats(self, writer):
        """A retry after a revocation is fenced, not answered."""
        await only(writer, entry(Once("dec", "d", SOON), fences={"key": 0}))
        await only(writer, entry(moves={"key": 1}))

        again = entry(Once("dec", "d", SOON), fences={"key": 0}, repeat="retry")

        assert await only(writer, again) == Fenced("key")
        assert await writer.size() == 3

    async def test_entries_of_one_batch_see_each_other(self, writer):
        """A name spent, or a fence moved, by one entry holds for its neighbours."""
        outcomes = await writer.append(
            [
                entry(Once("n", None, SOON)),
                entry(Once("n", None, SOON)),
                entry(moves={"a": 1}),
                entry(fences={"a": 0}),
                entry(moves={"a": 2}),
                entry(Once("d", "x", SOON)),
                entry(Once("d", "x", SOON), repeat="retry"),
                entry(id="same"),
                entry(id="same"),
            ]
        )

        kinds = [type(outcome) for outcome in outcomes]
        assert kinds == [
            Committed,
            Spent,
            Committed,
            Fenced,
            Committed,
            Committed,
            Repeated,
            Committed,
            Spent,
        ]
        assert receipt(outcomes[6]).index == receipt(outcomes[5]).index == 4
        assert await writer.size() == 1 + 6

    async def test_a_refused_entry_leaves_nothing(self, writer):
        """What is refused spends no name, moves no fence and writes no record."""
        await only(writer, entry(moves={"a": 1}))
        refused = entry(Once("n", None, SOON), fences={"a": 7}, moves={"b": 1}, topic="t")

        assert await only(writer, refused) == Fenced("a")
        assert await writer.fences(["b"]) == {"b": 0}
        assert await writer.topic("t", 0) == []
        assert isinstance(await only(writer, entry(Once("n", None, SOON))), Committed)


async def test_everything_holds_after_a_restart(world):
    """Names, digests, fences, topics, chains and time are what they were."""
    writer = await world.start()
    await writer.append(
        [
            entry(Once("n", None, SOON), Once("c", None, None)),
            replace(hiding("r-1", sub="ann"), once=(Once("d", "x", SOON),)),
            entry(moves={"a": 1}, topic="t"),
        ]
    )
    await only(writer, entry(Once("d", "x", SOON), Once("late", None, SOON)))  # writes no record
    await writer.aclose()

    writer = await world.start()
    outcomes = await writer.append(
        [
            entry(Once("n", None, SOON)),
            entry(Once("c", None, None)),
            entry(Once("d", "x", SOON)),
            entry(Once("d", "y", SOON)),
            entry(Once("late", None, SOON)),
            entry(fences={"a": 0}),
        ]
    )
    topic = await writer.topic("t", 0)
    await writer.aclose()

    assert outcomes[:2] == [Spent(1), Spent(1)]
    assert world.verify(receipt(outcomes[2])).openings == {"sub": "ann"}
    assert outcomes[3:] == [Spent(2), Spent(2), Fenced("a")]
    assert [found.index for found in topic] == [3]


async def test_topics_are_read_in_order_and_in_pages(world, writer):
    """Records of a topic from an index on, the first thousand."""
    await writer.append([entry(topic="keys" if n % 2 else "other") for n in range(2200)])

    first = await writer.topic("keys", 0)
    rest = await writer.topic("keys", first[-1].index + 1)

    assert [len(first), len(rest)] == [1000, 100]
    assert [found.index for found in first[:3]] == [2, 4, 6]
    assert world.verify(rest[-1]).fields["topic"] == "keys"
    assert await writer.topic("none", 0) == []


@pytest.mark.parametrize(
    "wrong",
    [
        Entry(b"{}"),
        Entry(body() + b" "),
        replace(entry(), body=body(typ="ledger.gap")),
        replace(entry(), body=body(typ="ledger.genesis")),
        replace(hiding("x", sub="ann"), openings=()),
        replace(entry(), openings=hiding("x", sub="ann").openings),
        replace(entry(), repeat="Retry"),
        replace(entry(), repeat="ledger.gap"),
        replace(entry(moves={"a": 1}), repeat="retry"),
        replace(entry(pad="x" * 65_100), repeat="r" * 64),
        replace(entry(), once=(Once("n", None, SOON), Once("n", "d", SOON))),
        replace(entry(), fences={f"f{number}": 0 for number in range(1001)}),
    ],
)
async def test_refuses_a_malformed_entry_with_its_call(writer, wrong):
    """A call that holds a malformed entry appends nothing of it."""
    with pytest.raises(RecordError):
        await writer.append([entry(), wrong])

    assert await writer.size() == 1


@pytest.mark.parametrize("index", [-1, 1, 99])
async def test_refuses_to_prove_what_is_not_there(writer, index):
    """Only records that exist can be proven."""
    with pytest.raises(LedgerUsageError):
        await writer.prove(index)


async def test_finds_nothing_where_nothing_is(writer):
    """An id that was never recorded has no receipt."""
    assert await writer.find("r-none") is None


async def test_a_closed_ledger_says_so(world):
    """After the end every call fails at once."""
    writer = await world.start()
    await writer.aclose()
    await writer.aclose()

    with pytest.raises(LedgerUnavailableError):
        await writer.append([entry()])
    with pytest.raises(LedgerUnavailableError):
        await writer.head()


async def test_what_was_accepted_is_answered_before_the_end(world):
    """Closing drains the queue."""
    writer = await world.start()
    waiting = [asyncio.ensure_future(writer.append([entry()])) for _ in range(50)]
    await asyncio.sleep(0)
    await writer.aclose()

    outcomes = await asyncio.gather(*waiting)

    assert all(isinstance(outcome, Committed) for [outcome] in outcomes)


async def test_a_full_queue_refuses_at_once(writer, monkeypatch):
    """More than the bound is refused, and what waits is not disturbed."""
    monkeypatch.setattr("envelock_ledger.writer.MAX_WAITING_BYTES", 5_000)
    waiting = asyncio.ensure_future(writer.append([entry(pad="x" * 4900)]))
    await asyncio.sleep(0)

    with pytest.raises(LedgerUnavailableError, match="too many"):
        await writer.append([entry()])
    outcomes = await waiting

    assert [type(outcome) for outcome in outcomes] == [Committed]
    assert isinstance(await only(writer, entry()), Committed)


async def test_a_caller_that_gives_up_changes_nothing(writer):
    """A cancelled append may still be recorded, and the ledger goes on."""
    waiting = asyncio.ensure_future(writer.append([entry(id="given-up")]))
    await asyncio.sleep(0)
    waiting.cancel()

    outcome = await only(writer, entry())

    assert isinstance(outcome, Committed)
    assert (await writer.find("given-up")).index == 1


async def test_a_snapshot_is_a_copy_without_openings(writer, tmp_path):
    """A snapshot is made beside appends, verifies by itself, and opens nothing."""
    await writer.append([hiding("r-1", sub="a-secret-name"), entry(moves={"a": 1}, topic="t")])
    await fill(writer, 900)
    making = asyncio.ensure_future(writer.snapshot(tmp_path / "copy"))
    appended = [await only(writer, entry()) for _ in range(10)]
    await making

    content = (tmp_path / "copy").read_bytes()
    assert all(isinstance(outcome, Committed) for outcome in appended)
    assert b"a-secret-name" not in content
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob(".*partial"))
    with pytest.raises(LedgerUsageError):
        await writer.snapshot(tmp_path / "copy")


async def test_a_snapshot_that_cannot_be_written_harms_nobody(writer, tmp_path):
    """Its caller learns it; appends go on."""
    with pytest.raises(LedgerUnavailableError):
        await writer.snapshot(tmp_path / "missing" / "copy")

    assert isinstance(await only(writer, entry()), Committed)


ENTRIES = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from([None, "x", "y"]),
        st.sampled_from("fg"),
        st.integers(0, 2),
        st.booleans(),
    ),
    max_size=12,
)


@given(plan=ENTRIES, cuts=st.sets(st.integers(0, 12)))
@settings(max_examples=25, deadline=None)
def test_batches_decide_nothing(tmp_path_factory, plan, cuts):
    """However entries fall into batches, and whenever the ledger restarts, outcomes are equal."""

    async def run(cuts: set[int]) -> list[object]:
        """Outcomes when batches end, and the ledger restarts, at *cuts*."""
        world = World(place_in(tmp_path_factory.mktemp("ledger")))
        writer = await world.start()
        outcomes: list[object] = []
        batch: list[Entry] = []
        for number, (name, digest, fence, expected, moves) in enumerate(plan):
            moved = {"moves": {fence: expected + 1}} if moves else {}
            batch.append(
                entry(Once(name, digest, SOON), fences={fence: expected}, id=f"e{number}", **moved)
            )
            if number in cuts:
                outcomes += await writer.append(batch)
                batch.clear()
                await writer.aclose()
                writer = await world.start()
        outcomes += await writer.append(batch)
        await writer.aclose()
        return [(type(o), getattr(o, "receipt", None) and o.receipt.index) for o in outcomes]

    assert asyncio.run(run(cuts)) == asyncio.run(run(set()))


async def test_the_key_and_the_databases_are_the_owners_alone(world, writer):
    """Every file is readable by its owner only."""
    await only(writer, hiding("r-1", sub="ann"))
    place = world.place

    for path in [place.key_file, place.anchor, *place.folder.iterdir()]:
        assert path.stat().st_mode & 0o077 == 0, path
    assert place.folder.stat().st_mode & 0o077 == 0

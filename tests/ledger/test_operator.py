"""The operator as adversary: each test cheats with a real ledger and the log's own key.

Who catches it is part of each promise: the start gate, an auditor with nothing but the pinned key,
an auditor who kept a checkpoint, the holder of a receipt. Where nobody can, that is asserted too.
"""

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ledger.auditor import audit
from ledger.rogue import Fields, Rogue, encoded, follow
from ledger.world import World, entry, fill, hiding, place_in, receipt

from envelock_formats.framing import b64
from envelock_ledger.checkpoint import Checkpoint, open_checkpoint
from envelock_ledger.errors import DamageError, ProofError
from envelock_ledger.merkle import check_consistency, leaf_hash, root_of
from envelock_ledger.note import Signer, VerifierKey
from envelock_ledger.place import found
from envelock_ledger.proof import Receipt
from envelock_ledger.report import Since, verify_receipt

EARLY, YESTERDAY, SIZE = 8, 14, 20  # records when a checkpoint, a backup, the last were made
VICTIM = 12  # the record whose receipt somebody holds
FORK = "these two signed checkpoints cannot both be true"


@dataclass
class Kept:
    """What others have of this log before anybody cheats."""

    early: Path  # a checkpoint of EARLY records
    latest: Path  # the last checkpoint
    receipt: Path  # of record VICTIM, under the last checkpoint
    victim: Receipt


async def tell(world: World, folder: Path) -> None:
    """Twenty records of three tenants, with backups and checkpoints on the way."""
    writer = await world.start()
    await writer.append([hiding("r-1", sub=["i", "ann"]), entry(tn="bolt", moves={"f": 1})])
    for size in range(4, SIZE + 1):
        world.clock.move(1)
        tenant = ("acme", "bolt", "core")[size % 3]
        await writer.append([entry(id=f"r-{size - 1}", tn=tenant)])
        if size == EARLY:
            (folder / "early.checkpoint").write_text(await writer.head())
        if size == YESTERDAY:
            await writer.aclose()
            shutil.copytree(world.place.folder, folder / "yesterday")
            shutil.copy(world.place.anchor, folder / "yesterday.anchor")
            writer = await world.start()
    (folder / "latest.checkpoint").write_text(await writer.head())
    (folder / "victim.tlog-proof").write_text((await writer.prove(VICTIM)).text())
    await writer.aclose()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That ledger, stopped."""
    folder = tmp_path_factory.mktemp("told")
    asyncio.run(tell(World(place_in(folder)), folder))
    return folder


@pytest.fixture
def rogue(told: Path, tmp_path: Path) -> Rogue:
    """Its operator, with a copy of everything."""
    shutil.copytree(told, tmp_path, dirs_exist_ok=True)
    world = World(place_in(tmp_path))
    return Rogue(world, world.signer, tmp_path)


@pytest.fixture
def kept(told: Path) -> Kept:
    """What others hold, out of the operator's reach."""
    proof = told / "victim.tlog-proof"
    victim = Receipt.parse(proof.read_text())
    return Kept(told / "early.checkpoint", told / "latest.checkpoint", proof, victim)


def edit(history: list[Fields]) -> list[Fields]:
    """Another tenant's word in the victim's record."""
    history[VICTIM]["id"] = "r-forged"
    return history


async def test_an_honest_ledger_satisfies_everybody(rogue, kept):
    """Without a cheat nobody complains, and what cannot be concluded is said."""
    alone = rogue.audit()
    checked = rogue.audit(kept.early, kept.latest, kept.receipt, rogue.world.place.anchor)

    assert await rogue.starts()
    assert (alone.code, checked.code) == (0, 0)
    assert alone.holds[0] == "20 records: leaves, chain, 3 tenant chains, time, fences"
    assert "extends early.checkpoint: 8 records, none rewritten" in checked.holds
    assert alone.cannot_conclude == [
        "that no record after these 20 was dropped: no later checkpoint was shown",
        "that none was rewritten before this was signed: nothing was kept",
        "that others were shown this same log: compare checkpoints with theirs (history)",
        "who is hidden in 1 records; what is true",
    ]


async def test_an_edited_record_is_caught_by_start_and_any_audit(rogue):
    """The bytes are hashed again, whatever the hash beside them says."""
    rogue.sql("UPDATE entry SET body = CAST(replace(body, 'r-12', 'r-99') AS BLOB) WHERE idx = 12")

    found = rogue.audit()

    assert (found.code, found.fails) == (
        6,
        "shown.jsonl: record 12: does not match its leaf; 12 before it hold",
    )
    assert not await rogue.starts()


async def test_an_edited_record_with_its_hash_breaks_the_chain(rogue):
    """The record after it names the hash that it had."""
    body = rogue.records()[VICTIM].replace(b"r-12", b"r-99")
    leaf = leaf_hash(body)
    rogue.sql("UPDATE entry SET body = ?, leaf = ?, rid = 'r-99' WHERE idx = 12", body, leaf)

    found = rogue.audit()

    assert found.fails.startswith("shown.jsonl: record 13: does not follow the record before it")
    assert not await rogue.starts()


async def test_a_rewritten_history_without_a_signature_is_caught_by_start_and_any_audit(
    rogue, kept
):
    """Every hash of a new history fits; the signature is over the old one."""
    rogue.rewrite(edit)

    found = rogue.audit(note=kept.latest.read_text())

    assert found.fails.endswith("the root of these 20 records is not what was signed")
    assert not await rogue.starts()


async def test_a_rewritten_history_that_is_signed_is_caught_by_who_kept_something(rogue, kept):
    """The operator signs the new history and rewrites the anchor: both signatures are evidence."""
    rogue.rewrite(edit)
    rogue.resign()

    alone, unlucky = rogue.audit(), rogue.audit(kept.early)
    by_checkpoint, by_receipt = rogue.audit(kept.latest), rogue.audit(kept.receipt)

    assert await rogue.starts()
    assert (alone.code, unlucky.code) == (0, 0)  # nothing that was kept covers the edit
    assert by_checkpoint.fails.startswith(f"{FORK}: latest.checkpoint:1 and shown.jsonl")
    assert by_receipt.fails.startswith(f"{FORK}: victim.tlog-proof and shown.jsonl")
    for note in by_checkpoint.evidence["checkpoints"]:
        open_checkpoint(note, rogue.key)


async def test_a_record_removed_in_the_middle_is_caught_by_who_kept_something(rogue, kept):
    """Signed anew, one record shorter: an auditor with an earlier checkpoint sees it."""
    rogue.rewrite(lambda history: [*history[:5], *history[6:]])
    rogue.resign()

    assert await rogue.starts()
    assert rogue.audit().code == 0
    assert rogue.audit(kept.early).fails.startswith(FORK)
    assert "records 19-19 are missing" in rogue.audit(kept.latest).fails
    assert "records 19-19 are missing" in rogue.audit(kept.receipt).fails


async def test_a_record_removed_without_a_trace_is_caught_by_start_and_any_audit(rogue):
    """A gap in the indexes."""
    rogue.sql("DELETE FROM entry WHERE idx = 5")

    assert rogue.audit().fails.startswith("shown.jsonl: record 5: is cut short, malformed or out")
    assert not await rogue.starts()


async def test_a_dropped_tail_is_caught_by_the_anchor(rogue):
    """The anchor is out of the operator's reach: the ledger does not start."""
    rogue.put(rogue.records()[:YESTERDAY])

    assert not await rogue.starts()


async def test_a_dropped_tail_is_caught_by_a_later_checkpoint_and_by_receipts(rogue, kept):
    """With the anchor rewritten only those notice who hold something later; others are told so."""
    rogue.put(rogue.records()[: EARLY + 1])
    rogue.resign()

    unlucky = rogue.audit(kept.early)

    assert await rogue.starts()
    assert unlucky.code == 0
    assert unlucky.cannot_conclude[0] == (
        "that no record after these 9 was dropped: no later checkpoint was shown"
    )
    missing = "records 9-19 are missing, signed in "
    assert rogue.audit(kept.latest).fails == f"{missing}latest.checkpoint:1"
    assert rogue.audit(kept.receipt).fails == f"{missing}victim.tlog-proof"


async def test_reordered_records_are_caught_by_start_and_any_audit(rogue):
    """Two records that changed places."""
    rogue.sql("UPDATE entry SET idx = -1 WHERE idx = 6")
    rogue.sql("UPDATE entry SET idx = 6 WHERE idx = 7")
    rogue.sql("UPDATE entry SET idx = 7 WHERE idx = -1")

    assert "record 6: says that it is record 7" in rogue.audit().fails
    assert not await rogue.starts()


async def test_records_that_are_reordered_and_signed_betray_their_times(rogue, kept):
    """Chained anew the order contradicts the times; with those forged too, what was kept."""

    def swap(history: list[Fields]) -> list[Fields]:
        history[6], history[7] = history[7], history[6]
        return history

    def swap_times_too(history: list[Fields]) -> list[Fields]:
        history[6]["_t"], history[7]["_t"] = history[7]["_t"], history[6]["_t"]
        return history

    rogue.rewrite(swap)
    rogue.resign()
    by_time, started = rogue.audit(), await rogue.starts()
    rogue.rewrite(swap_times_too)
    rogue.resign()

    assert "record 7: was sequenced before the record in front of it" in by_time.fails
    assert not started
    assert rogue.audit().code == 0
    assert rogue.audit(kept.early).fails.startswith(FORK)


async def test_a_backdated_record_is_caught_by_who_kept_something(rogue, kept):
    """A record between two others, with a time between theirs, everything signed anew."""

    def insert(history: list[Fields]) -> list[Fields]:
        backdated = history[5] | {"id": "r-backdated"}
        return [*history[:6], backdated, *history[6:]]

    rogue.rewrite(insert)
    rogue.resign()

    assert await rogue.starts()
    assert rogue.audit().code == 0
    assert rogue.audit(kept.early).fails.startswith(FORK)
    assert rogue.audit(kept.receipt).fails.startswith(FORK)


async def test_a_backdated_record_at_the_end_is_caught_by_start_and_any_audit(rogue):
    """Time never runs backwards in a log."""
    rogue.rewrite(lambda history: [*history, history[5] | {"id": "r-backdated"}])
    rogue.resign()

    assert "record 20: was sequenced before" in rogue.audit().fails
    assert not await rogue.starts()


async def fork_off(rogue: Rogue, folder: Path, records: int) -> Rogue:
    """A second ledger, honest in itself, that goes on from yesterday's backup."""
    shutil.copytree(rogue.folder / "yesterday", folder / "ledger")
    for name in ("anchor", "secrets"):
        shutil.copytree(rogue.folder / name, folder / name)
    shutil.copy(rogue.folder / "yesterday.anchor", folder / "anchor" / "a")
    world = World(place_in(folder))
    world.clock.move(100)
    writer = await world.start()
    await fill(writer, YESTERDAY + records)
    await writer.aclose()
    return Rogue(world, rogue.signer, folder)


async def test_a_fork_of_one_size_is_caught_when_two_people_compare_checkpoints(rogue, tmp_path):
    """Each history verifies by itself; two checkpoints of one size are enough."""
    other = await fork_off(rogue, tmp_path / "other", SIZE - YESTERDAY)
    notes = [tmp_path / "mine", tmp_path / "theirs"]
    for path, side in zip(notes, (rogue, other), strict=True):
        path.write_text(side.note())

    found = audit("history", *notes, key=rogue.key)

    assert (rogue.audit().code, other.audit().code) == (0, 0)
    assert await rogue.starts()
    assert await other.starts()
    assert (found.code, found.fails) == (6, f"{FORK}: theirs:1 and mine:1")
    assert found.evidence["checkpoints"] == [path.read_text() for path in reversed(notes)]


async def test_a_fork_of_two_sizes_is_caught_with_evidence_for_third_parties(rogue, tmp_path):
    """The evidence needs no record: two checkpoints, and a proof of what one of them commits to."""
    other = await fork_off(rogue, tmp_path / "other", 3)
    (tmp_path / "theirs").write_text(other.note())

    alone = audit("history", tmp_path / "theirs", rogue.export(), key=rogue.key)
    found = rogue.audit(tmp_path / "theirs")
    theirs, mine = (open_checkpoint(n, rogue.key) for n in found.evidence["checkpoints"])
    root = bytes.fromhex(found.evidence["root"])
    proof = tuple(map(bytes.fromhex, found.evidence["proof"]))

    assert alone.code == 0  # two sizes need the records, and it says so
    assert alone.cannot_conclude[0].startswith("that one size grew out of another")
    assert found.fails == f"{FORK}: theirs:1 and shown.jsonl"
    assert (theirs.size, mine.size) == (YESTERDAY + 3, SIZE)
    check_consistency(theirs.size, mine.size, root, mine.root, proof)
    assert root != theirs.root


async def test_signing_everything_anew_is_caught_by_who_kept_something(rogue, kept):
    """Record 0 is kept, all others are the operator's invention."""
    rogue.rewrite(lambda history: history[:1] + [one | {"ts": 1} for one in history[1:]])
    rogue.resign()

    assert await rogue.starts()
    assert rogue.audit().code == 0
    for evidence in (kept.early, kept.latest, kept.receipt):
        assert rogue.audit(evidence).fails.startswith(FORK)


async def test_another_key_is_caught_by_whoever_pinned_the_first(rogue):
    """A log that names another key is another log, however well it verifies under it."""
    signer = Signer(rogue.signer.verifier.name, Ed25519PrivateKey.generate())

    def rename(history: list[Fields]) -> list[Fields]:
        history[0]["ledger_key"] = str(signer.verifier)
        return history

    pinned: VerifierKey = rogue.key
    rogue.rewrite(rename)
    rogue.signer = signer
    rogue.resign()
    path = rogue.export()

    assert audit("export", path, key=signer.verifier).code == 0
    assert "not signed by" in audit("export", path, key=pinned).fails
    with pytest.raises(DamageError):  # the key file is still the log's own
        found(rogue.world.place, bytes)


async def test_a_genesis_that_names_another_key_is_caught_by_any_audit(rogue):
    """Signed with the log's own key, it contradicts itself."""
    rogue.rewrite(lambda history: [history[0] | {"ledger_key": "x"}, *history[1:]])
    rogue.resign()

    assert "record 0: is not the genesis of this log and key" in rogue.audit().fails
    assert not await rogue.starts()


async def test_a_database_rolled_back_alone_is_caught_at_the_start(rogue):
    """The anchor is later than the backup."""
    rogue.restore(rogue.folder / "yesterday" / "ledger.db")

    assert not await rogue.starts()


async def test_database_and_anchor_rolled_back_are_caught_by_who_holds_something_later(rogue, kept):
    """Yesterday's backup with yesterday's anchor: later checkpoints and receipts contradict it."""
    rogue.restore(rogue.folder / "yesterday" / "ledger.db")
    shutil.copy(rogue.folder / "yesterday.anchor", rogue.world.place.anchor)

    assert "records 14-19 are missing" in rogue.audit(kept.latest).fails
    assert "records 14-19 are missing" in rogue.audit(kept.receipt).fails


async def test_database_and_anchor_rolled_back_are_caught_by_nobody_else(rogue, kept):
    """Without a witness, where nobody holds anything later: it starts, and every audit holds."""
    rogue.restore(rogue.folder / "yesterday" / "ledger.db")
    shutil.copy(rogue.folder / "yesterday.anchor", rogue.world.place.anchor)

    found = rogue.audit(kept.early)

    assert await rogue.starts()
    assert found.code == 0
    assert found.cannot_conclude[0] == (
        "that no record after these 14 was dropped: no later checkpoint was shown"
    )


async def test_a_log_that_went_on_after_a_rollback_is_caught_by_older_receipts(
    rogue, kept, tmp_path
):
    """It is long enough again, and another history."""
    other = await fork_off(rogue, tmp_path / "other", SIZE)

    assert other.audit().code == 0
    assert other.audit(kept.early).code == 0
    assert other.audit(kept.latest).fails.startswith(FORK)
    assert other.audit(kept.receipt).fails.startswith(FORK)


async def test_a_broken_tenant_chain_is_caught_by_start_and_any_audit(rogue):
    """A record that lost its place in its tenant's chain, everything else fitted and signed."""
    history = rogue.fields()
    chains = ("_tp", "_tq")
    history[9] |= {name: history[10][name] for name in chains}
    rogue.put(follow(history))
    rogue.resign()

    assert "record 9: breaks the chain of tenant" in rogue.audit().fails
    assert not await rogue.starts()


async def test_a_record_moved_to_another_tenant_is_caught_by_start_and_any_audit(rogue):
    """Both chains have to fit."""
    history = rogue.fields()
    history[9]["tn"] = "core" if history[9]["tn"] != "core" else "acme"
    rogue.put(follow(history))
    rogue.resign()

    assert "breaks the chain of tenant" in rogue.audit().fails
    assert not await rogue.starts()


async def test_a_record_moved_with_its_chains_is_caught_by_who_kept_something(rogue, kept):
    """The tenant that lost it holds a receipt."""

    def move(history: list[Fields]) -> list[Fields]:
        history[VICTIM]["tn"] = "evil"
        return history

    rogue.rewrite(move)
    rogue.resign()

    assert rogue.audit().code == 0
    assert rogue.audit(kept.receipt).fails.startswith(FORK)


async def test_a_receipt_of_a_record_that_is_not_there_is_caught_beside_an_export(rogue, tmp_path):
    """A tree made for one victim alone: its receipt verifies, and no export agrees with it."""
    bodies = [*rogue.records()[:-1], encoded(rogue.fields()[-1] | {"id": "r-for-you"})]
    leaves = [leaf_hash(body) for body in bodies]
    note = Checkpoint(rogue.key.name, SIZE, root_of(leaves)).sign(rogue.signer)
    path = [leaves[18], root_of(leaves[16:18]), root_of(leaves[:16])]
    shown = Receipt(index=19, record=bodies[-1], openings={}, path=tuple(path), checkpoint=note)
    (tmp_path / "mine").write_text(shown.text())

    alone = audit("receipt", tmp_path / "mine", key=rogue.key)

    assert alone.code == 0
    assert shown.verify(rogue.key).fields["id"] == "r-for-you"
    assert rogue.audit(tmp_path / "mine").fails.startswith(f"{FORK}: mine and shown.jsonl")


async def test_a_receipt_for_another_record_is_caught_by_its_holder(rogue, kept, tmp_path):
    """A record, an index or a path that is not its own."""
    for change in (
        {"index": 13},
        {"record": rogue.records()[13]},
        {"path": kept.victim.path[::-1]},
        {"path": (*kept.victim.path, bytes(32))},
    ):
        values = {name: getattr(kept.victim, name) for name in Receipt.__slots__} | change
        forged = Receipt(**values)
        (tmp_path / "forged").write_text(forged.text())

        assert audit("receipt", tmp_path / "forged", key=rogue.key).code == 6
        with pytest.raises(ProofError):
            forged.verify(rogue.key)


async def test_openings_that_were_altered_are_caught_by_whoever_is_shown_them(rogue, tmp_path):
    """The commitment in the record holds the operator to the name it hid."""
    writer = await rogue.world.start()
    honest = await writer.prove(1)
    await writer.aclose()
    salt, _ = honest.openings["sub"]
    values = {name: getattr(honest, name) for name in Receipt.__slots__}
    lie = Receipt(**values | {"openings": {"sub": (salt, ["i", "bob"])}})
    (tmp_path / "lie").write_text(lie.text())
    (tmp_path / "honest").write_text(honest.text())

    assert 'sub opens to ["i","ann"]' in audit("receipt", tmp_path / "honest", key=rogue.key).holds
    assert (
        "the opening of sub is not true" in audit("receipt", tmp_path / "lie", key=rogue.key).fails
    )
    assert verify_receipt(lie, rogue.key, None).failed is not None


async def test_what_a_client_keeps_catches_a_rollback_too(rogue, kept):
    """The ledger's own verifier and `--since`, as a client keeps its newest head."""
    since = Since("kept", open_checkpoint(kept.latest.read_text(), rogue.key))
    rogue.restore(rogue.folder / "yesterday" / "ledger.db")
    shutil.copy(rogue.folder / "yesterday.anchor", rogue.world.place.anchor)
    writer = await rogue.world.start()
    later = receipt((await writer.append([entry(seen=SIZE)]))[0])
    await writer.aclose()

    report = verify_receipt(later, rogue.key, since)

    assert isinstance(report.failed, ProofError)
    assert later.consistency is None
    assert b64(since.checkpoint.root) in kept.latest.read_text()

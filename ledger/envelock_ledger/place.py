"""Where a ledger lives, and how it is founded and opened.

The start gate, in order. Whatever fails is refused with the reason and nothing is signed:

1. The anchor exists and its last line is signed by this log's key.
2. Every stored record verifies, and so do the tables beside them.
3. The database ends where the anchor does, or one batch later: the batch whose commit was durable
   and whose anchor line was not.
4. The root at the anchor's size is the anchor's.
5. Openings of records that were never committed are removed; the others belong to their records.
   Openings that a record calls erased, and that a backup brought back, are erased again.
6. The batch that was ahead is signed and anchored.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from envelock_ledger.anchor import Anchor, create_anchor, read_anchor
from envelock_ledger.checkpoint import Checkpoint
from envelock_ledger.erasing import Census, repeat_erasures, take_census
from envelock_ledger.errors import DamageError
from envelock_ledger.merkle import EMPTY_ROOT, Growth, leaf_hash
from envelock_ledger.nodes import StoredNodes
from envelock_ledger.note import Signer
from envelock_ledger.record import NO_TENANT, genesis
from envelock_ledger.sequence import Sequencer
from envelock_ledger.spent import SpentNames
from envelock_ledger.store import Batch, Head, Row, Store, TenantHead
from envelock_ledger.store.disclosure import Disclosures
from envelock_ledger.store.files import make_folder, write_new
from envelock_ledger.store.sqlite import SqliteStore
from envelock_ledger.verify import Tally, check_genesis, compare_tables, examine

DATABASE = "ledger.db"
DISCLOSURES = "disclosure.db"
LOCK = "lock"
_ROLLED_BACK = "the database and its anchor are of different times: see the recovery procedure"


@dataclass(frozen=True, slots=True)
class Place:
    """The files of one ledger.

    The anchor belongs on another device than the folder, out of reach of whoever restores it.
    """

    folder: Path
    anchor: Path
    key_file: Path  # PKCS #8 PEM, the owner's alone

    @property
    def database(self) -> Path:
        """The records."""
        return self.folder / DATABASE

    @property
    def lock(self) -> Path:
        """The file whose lock the one writer holds."""
        return self.folder / LOCK

    def open_store(self, *, create: bool) -> Store:
        """Open the records for writing."""
        return SqliteStore.open(self.database, create=create)

    def open_disclosures(self, *, create: bool) -> Disclosures:
        """Open what opens hidden fields."""
        return Disclosures(self.folder / DISCLOSURES, create=create)

    def open_anchor(self) -> Anchor:
        """Open the anchor for writing."""
        return Anchor(self.anchor)


@dataclass(slots=True)
class Opened:
    """A ledger that passed the start gate; owned by the writer's thread."""

    store: Store
    disclosures: Disclosures
    anchor: Anchor
    sequencer: Sequencer
    nodes: StoredNodes
    head: Head
    note: str  # the checkpoint of *head*, signed and anchored
    census: Census  # of the openings, when it was opened

    def close(self) -> None:
        """Close every file."""
        self.anchor.close()
        self.disclosures.close()
        self.store.close()


def found(place: Place, random: Callable[[int], bytes]) -> Signer:
    """Return the signer of the ledger at *place*; found the ledger when there is none.

    Founding creates the key, a random origin, and the anchor of the empty log. It is repeatable: a
    crash in between leaves nothing that the next start cannot go on from. The caller holds the
    lock.

    Raises:
        DamageError: Some of the files are there and others are not, or the key is another log's.
        LedgerUnavailableError: A file cannot be read.
    """
    if place.anchor.exists() or place.database.exists():
        anchored = read_anchor(place.anchor)
        signer = Signer(anchored.key.name, _read_key(place.key_file))
        if signer.verifier != anchored.key:
            raise DamageError(
                f"{place.key_file} is not the key of {anchored.key.name}",
                "put the log's own key back",
            )
        return signer
    for folder in (place.folder, place.anchor.parent, place.key_file.parent):
        make_folder(folder)
    if not place.key_file.exists():
        write_new(place.key_file, _pem(Ed25519PrivateKey.from_private_bytes(random(32))))
    origin = f"envelock-{random(8).hex()}"
    signer = Signer(origin, _read_key(place.key_file))
    create_anchor(place.anchor, signer, Checkpoint(origin, 0, EMPTY_ROOT))
    return signer


def open_ledger(place: Place, signer: Signer, now_us: int) -> Opened:
    """Open the files and pass the start gate.

    Raises:
        DamageError: A step of the gate failed; the message names the first thing that is wrong.
        LedgerUnavailableError: A file cannot be opened, read or written.
    """
    closing: list[Callable[[], None]] = []
    try:
        anchor = place.open_anchor()
        closing.append(anchor.close)
        new = anchor.last.checkpoint.size == 0
        store = place.open_store(create=new)
        closing.append(store.close)
        disclosures = place.open_disclosures(create=new)
        closing.append(disclosures.close)
        opened = _pass_gate(store, disclosures, anchor, signer, now_us)
    except BaseException:
        for close in reversed(closing):
            close()
        raise
    return opened


def _pass_gate(
    store: Store, disclosures: Disclosures, anchor: Anchor, signer: Signer, now_us: int
) -> Opened:
    anchored = anchor.last.checkpoint
    if anchor.last.key != signer.verifier:
        raise DamageError(f"anchor {anchor.path} is of {anchor.last.key}", "put the right one back")
    head = store.head() or _begin(store, anchored, signer, now_us)
    tally = examine(store, head.size, {anchored.size})
    compare_tables(store, head, tally)
    check_genesis(store, signer.verifier)
    if anchored.size not in (head.size, head.prior):
        raise DamageError(
            f"database ends at {head.size} records, anchor {anchor.path} at {anchored.size}",
            _ROLLED_BACK,
        )
    if tally.roots[anchored.size] != anchored.root:
        raise DamageError(f"root of {anchored.size} records is not the anchor's", _ROLLED_BACK)
    disclosures.collect(head.size)
    disclosures.check(tally.hides)
    repeat_erasures(store, tally, disclosures)
    note = anchor.last.note
    if anchored.size != head.size:
        note = Checkpoint(signer.verifier.name, head.size, head.root).sign(signer)
        anchor.append(note)
    nodes = StoredNodes(store)
    return Opened(
        store=store,
        disclosures=disclosures,
        anchor=anchor,
        sequencer=_sequencer(store, head, tally),
        nodes=nodes,
        head=head,
        note=note,
        census=take_census(store, tally, disclosures),
    )


def _sequencer(store: Store, head: Head, tally: Tally) -> Sequencer:
    return Sequencer(
        growth=Growth.of(tally.spine.frontier),
        sequenced_us=head.sequenced_us,
        previous=tally.previous,
        tenants=tally.tenants,
        fences=tally.fences,
        spent=SpentNames.of(store.spent()),
        find=store.find,
    )


def _begin(store: Store, anchored: Checkpoint, signer: Signer, now_us: int) -> Head:
    """Write record 0 into an empty database."""
    if anchored.size != 0:
        raise DamageError(f"database is empty, its anchor is at {anchored.size}", _ROLLED_BACK)
    body = genesis(signer.verifier.name, str(signer.verifier), now_us)
    leaf = leaf_hash(body)
    head = Head(size=1, prior=0, root=leaf, sequenced_us=now_us)
    row = Row(0, leaf, "genesis", body)
    store.write(Batch(rows=[row], head=head, tenants={NO_TENANT: TenantHead(leaf, 1)}))
    return head


def _read_key(path: Path) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise DamageError(
            f"log key {path} cannot be read", "put the log's own key back; it is made once"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise DamageError(f"log key {path} is not an Ed25519 key")
    return key


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )

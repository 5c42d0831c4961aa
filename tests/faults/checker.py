"""One checker for every fault: nothing that a client was told is lost, doubled or contradicted."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import orjson

from envelock_ledger.checkpoint import open_checkpoint
from envelock_ledger.errors import LedgerError
from envelock_ledger.merkle import ZERO_HASH, Spine, leaf_hash
from envelock_ledger.note import VerifierKey
from envelock_ledger.proof import Receipt


@dataclass(frozen=True, slots=True)
class Left:
    """What a ledger holds after a fault."""

    key: VerifierKey
    records: Sequence[bytes]
    head: str  # the signed checkpoint


def complaints(told: Iterable[Receipt], left: Left) -> list[str]:
    """Everything that is wrong with *left*, given what clients were *told*; empty when all holds.

    Every receipt verifies; its record is there, the same bytes in the same place, once; chain and
    tree hold; the head is not below any that was published and has the same root at its size; and
    each decision stands in one release at most.
    """
    try:
        head = open_checkpoint(left.head, left.key)
    except LedgerError as error:
        return [f"head: {error}"]
    found = [*_chain(left.records), *_doubled(left.records)]
    roots = _roots([leaf_hash(record) for record in left.records])
    if (head.size, head.root) != (len(left.records), roots[-1]):
        found.append(f"the head of {head.size} is not that of the {len(left.records)} records")
    for receipt in told:
        found += _contradicted(receipt, left, roots)
    return found


def _contradicted(receipt: Receipt, left: Left, roots: Sequence[bytes]) -> list[str]:
    try:
        receipt.verify(left.key)
        published = open_checkpoint(receipt.checkpoint, left.key)
    except LedgerError as error:
        return [f"receipt of record {receipt.index}: {error}"]
    if receipt.index >= len(left.records):
        return [f"record {receipt.index} was acknowledged and is lost"]
    if left.records[receipt.index] != receipt.record:
        return [f"record {receipt.index} is another than was acknowledged"]
    if published.size >= len(roots):
        return [f"a head of {published.size} was published, {len(roots) - 1} are left"]
    if roots[published.size] != published.root:
        return [f"the head of {published.size} has another root than was published"]
    return []


def _chain(records: Sequence[bytes]) -> list[str]:
    found, previous = [], ZERO_HASH
    for number, record in enumerate(records):
        fields = orjson.loads(record)
        if (fields["_i"], fields["_p"]) != (number, previous.hex()):
            found.append(f"record {number} does not follow the one before it")
        previous = leaf_hash(record)
    return found


def _doubled(records: Sequence[bytes]) -> list[str]:
    every = [orjson.loads(record) for record in records]
    ids = Counter(fields["id"] for fields in every)
    spent = Counter(
        fields["dec"] for fields in every if fields["typ"] == "release" if "dec" in fields
    )
    return [f"record id {one} occurs twice" for one, times in ids.items() if times > 1] + [
        f"decision {one} released twice" for one, times in spent.items() if times > 1
    ]


def _roots(leaves: Sequence[bytes]) -> list[bytes]:
    """The root at every size."""
    spine = Spine()
    roots = [spine.root]
    for leaf in leaves:
        spine.append(leaf)
        roots.append(spine.root)
    return roots

"""The tree of RFC 9162 section 2.1 (RFC 6962), with SHA-256.

`node(level, n)` everywhere is the hash of the complete subtree over the leaves
`[n * 2**level, (n + 1) * 2**level)`. Nodes that are not complete are never stored: a `Prover`
computes the right edge of one tree size from complete nodes, once for all its proofs.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from envelock_ledger.errors import ProofError

HASH_SIZE = 32  # bytes
STRATUM = 8  # levels between stored strata: one row for 256 below it
MAX_LEVELS = 64
_LOW = 6  # levels of a path that are a leaf's own; neighbours share the rest
EMPTY_ROOT = hashlib.sha256(b"").digest()
ZERO_HASH = bytes(HASH_SIZE)  # stands for "no previous record"

_NOTHING: tuple[Mapping[int, bytes], ...] = ({},) * MAX_LEVELS
NodeReader = Callable[[int, int], bytes]
_sha256 = hashlib.sha256


def leaf_hash(record: bytes) -> bytes:
    """Hash of a leaf: SHA-256 over 0x00 and the record."""
    return _sha256(b"\x00" + record).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node: SHA-256 over 0x01 and both children."""
    return _sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Frontier:
    """The complete subtrees that make up a tree of *size* leaves, the largest first.

    INVARIANT: there is one peak for each bit set in *size*.
    """

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.peaks) != self.size.bit_count():
            raise ProofError(f"{len(self.peaks)} peaks cannot make a tree of {self.size}")

    @property
    def root(self) -> bytes:
        """Root of the tree; that of the empty tree is SHA-256 over nothing."""
        root = EMPTY_ROOT
        for number, peak in enumerate(reversed(self.peaks)):
            root = node_hash(peak, root) if number else peak
        return root

    def positions(self) -> Iterator[tuple[int, int, bytes]]:
        """Level, number and hash of every peak, the largest first."""
        levels = (bit for bit in reversed(range(self.size.bit_length())) if self.size >> bit & 1)
        for level, peak in zip(levels, self.peaks, strict=True):
            yield level, (self.size >> level) - 1, peak


@dataclass(slots=True)
class Growth:
    """A tree that grows: the peaks it started from, and every node completed since.

    Owned by one thread. `node` answers for what the proofs of the new leaves need, so appending
    reads nothing back.
    """

    size: int = 0
    levels: list[dict[int, bytes]] = field(default_factory=list)
    strata: list[tuple[int, int, bytes]] = field(default_factory=list)  # (level, n, hash), new

    @classmethod
    def of(cls, frontier: Frontier) -> "Growth":
        """Start from the peaks of *frontier*."""
        growth = cls(frontier.size, [{} for _ in range(frontier.size.bit_length() + 1)])
        for level, number, peak in frontier.positions():
            growth.levels[level][number] = peak
        return growth

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash, and the inner nodes that it completes."""
        number, level, levels = self.size, 0, self.levels
        self.size += 1
        while True:
            if level == len(levels):
                levels.append({})
            levels[level][number] = leaf
            if level and level % STRATUM == 0:
                self.strata.append((level, number, leaf))
            if not number & 1:
                return
            leaf = _sha256(b"\x01" + levels[level][number - 1] + leaf).digest()
            number, level = number >> 1, level + 1

    def node(self, level: int, number: int) -> bytes:
        """Hash of a complete subtree; `KeyError` when it lies before the starting peaks."""
        return self.levels[level][number]

    def frontier(self) -> Frontier:
        """The peaks at the present size."""
        bits = reversed(range(self.size.bit_length()))
        peaks = (self.levels[bit][(self.size >> bit) - 1] for bit in bits if self.size >> bit & 1)
        return Frontier(self.size, tuple(peaks))


@dataclass(slots=True)
class Spine:
    """A tree rebuilt from its leaves in one pass and logarithmic space: it keeps peaks only."""

    size: int = 0
    peaks: list[bytes] = field(default_factory=list)
    strata: list[tuple[int, int, bytes]] = field(default_factory=list)  # taken by the reader

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash."""
        number, level, peaks = self.size, 0, self.peaks
        while number & 1:
            leaf = _sha256(b"\x01" + peaks.pop() + leaf).digest()
            number, level = number >> 1, level + 1
            if level % STRATUM == 0:
                self.strata.append((level, number, leaf))
        peaks.append(leaf)
        self.size += 1

    @property
    def frontier(self) -> Frontier:
        """The peaks at the present size."""
        return Frontier(self.size, tuple(self.peaks))

    @property
    def root(self) -> bytes:
        """Root at the present size."""
        return self.frontier.root


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Root over leaf hashes."""
    spine = Spine()
    for leaf in leaves:
        spine.append(leaf)
    return spine.root


class Prover:
    """Makes proofs for one tree size.

    Args:
        size: Leaves in the tree.
        node: Reader of complete subtrees within that size.
        recent: Nodes at hand, by level and number; asked before *node*.
    """

    def __init__(
        self, size: int, node: NodeReader, recent: Sequence[Mapping[int, bytes]] = ()
    ) -> None:
        self.size, self._stored = size, node
        self._recent = [*recent, *_NOTHING][:MAX_LEVELS]
        self._edges: list[bytes] = []  # at level l: hash over the last size % 2**l leaves
        edge = b""
        for level in range(size.bit_length()):
            self._edges.append(edge)
            if size >> level & 1:
                peak = self._node(level, (size >> level) - 1)
                edge = node_hash(peak, edge) if edge else peak
        self.root = edge or EMPTY_ROOT
        self._tops: dict[int, tuple[bytes, ...]] = {}  # shared ends of paths, by leaf >> _LOW

    def inclusion(self, index: int) -> tuple[bytes, ...]:
        """Path from leaf *index* to the root: RFC 9162 section 2.1.3.1.

        Raises:
            ProofError: The tree has no such leaf.
        """
        if not 0 <= index < self.size:
            raise ProofError(f"no record {index} in a tree of {self.size}")
        top = self._tops.get(index >> _LOW)
        if top is None:
            top = self._tops[index >> _LOW] = self._path(_LOW, index >> _LOW)
        return self._path(0, index, _LOW) + top

    def consistency(self, old: int) -> tuple[bytes, ...]:
        """Proof that this tree extends its first *old* leaves: RFC 9162 section 2.1.4.1.

        Raises:
            ProofError: *old* is 0 or more than the tree has.
        """
        if not 0 < old <= self.size:
            raise ProofError(f"a tree of {self.size} does not extend one of {old}")
        if old == self.size:
            return ()
        level = (old & -old).bit_length() - 1
        number = (old >> level) - 1
        start = () if number == 0 else (self._node(level, number),)
        return start + self._path(level, number)

    def _node(self, level: int, number: int) -> bytes:
        return self._recent[level].get(number) or self._stored(level, number)

    def _path(self, level: int, number: int, below: int = MAX_LEVELS) -> tuple[bytes, ...]:
        path, size, recent = [], self.size, self._recent
        while 1 << level < size and level < below:
            sibling = number ^ 1
            if (sibling + 1) << level <= size:
                path.append(recent[level].get(sibling) or self._stored(level, sibling))
            elif sibling << level < size:
                path.append(self._edges[level])
            number, level = number >> 1, level + 1
        return tuple(path)


def root_from_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """Compute the root that *path* connects *leaf* to: RFC 9162 section 2.1.3.2.

    Args:
        leaf: Leaf hash, 32 bytes.
        index: Position of the leaf, `0 <= index < size`.
        size: Leaves in the tree.
        path: Sibling hashes of 32 bytes, from the leaf upwards.

    Raises:
        ProofError: *index*, or the length of *path*, is impossible for *size*.
    """
    if not 0 <= index < size:
        raise ProofError(f"no record {index} in a tree of {size}")
    _refuse_lengths([leaf, *path])
    fn, sn, root = index, size - 1, leaf  # names of the RFC
    for sibling in path:
        if sn == 0:
            raise ProofError("path is longer than the tree is high")
        if fn & 1 or fn == sn:
            root = node_hash(sibling, root)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            root = node_hash(root, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        raise ProofError("path is shorter than the tree is high")
    return root


def check_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Raise `ProofError` unless *leaf* is leaf *index* of the tree of *size* under *root*."""
    if root_from_inclusion(leaf, index, size, path) != root:
        raise ProofError(f"path of record {index} does not lead to the root of {size}")


def check_consistency(
    old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Raise `ProofError` unless the tree of *new* extends that of *old*: RFC 9162 2.1.4.2.

    Two equal sizes need an empty proof and equal roots. From an empty tree to another nothing can
    be proven, so asking for it is an error.
    """
    if old == new and not proof and old_root == new_root:
        if old == 0 and old_root != EMPTY_ROOT:
            raise ProofError("the empty tree has another root")
        return
    _refuse_lengths([old_root, new_root, *proof])
    if not 0 < old < new:
        raise ProofError(f"a tree of {new} is not shown to extend one of {old}")
    if _roots_from_consistency(old, new, old_root, proof) != (old_root, new_root):
        raise ProofError(f"tree of {new} does not extend the tree of {old}")


def _roots_from_consistency(
    old: int, new: int, old_root: bytes, proof: Sequence[bytes]
) -> tuple[bytes, bytes]:
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not path:
        raise ProofError("consistency proof is empty")
    fn, sn = old - 1, new - 1  # names of the RFC
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for sibling in path[1:]:
        if sn == 0:
            raise ProofError("consistency proof is too long")
        if fn & 1 or fn == sn:
            fr, sr = node_hash(sibling, fr), node_hash(sibling, sr)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node_hash(sr, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        raise ProofError("consistency proof is too short")
    return fr, sr


def _refuse_lengths(hashes: Sequence[bytes]) -> None:
    if any(len(item) != HASH_SIZE for item in hashes):
        raise ProofError(f"a hash in the proof is not {HASH_SIZE} bytes long")

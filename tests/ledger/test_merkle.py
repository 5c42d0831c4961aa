"""The tree: vectors from outside, and the RFC's recursive definitions as oracle."""

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelock_ledger.errors import ProofError
from envelock_ledger.merkle import (
    EMPTY_ROOT,
    Frontier,
    Growth,
    Prover,
    Spine,
    check_consistency,
    check_inclusion,
    leaf_hash,
    node_hash,
    root_from_inclusion,
    root_of,
)

Hashes = list[bytes]


def split(size: int) -> int:
    """The largest power of two below *size*."""
    return 1 << ((size - 1).bit_length() - 1)


def mth(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 9162 2.1.1, over leaf hashes."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return hashlib.sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def path(m: int, leaves: Sequence[bytes]) -> Hashes:
    """PATH of RFC 9162 2.1.3.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: Sequence[bytes], *, whole: bool) -> Hashes:
    """SUBPROOF of RFC 9162 2.1.4.1."""
    if m == len(leaves):
        return [] if whole else [mth(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], whole=whole), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], whole=False), mth(leaves[:k])]


def numbered(size: int) -> Hashes:
    """Leaf hashes of the records 0, 1, 2, ..."""
    return [leaf_hash(str(number).encode()) for number in range(size)]


def grown(leaves: Sequence[bytes]) -> Growth:
    """A tree over *leaves*, from nothing."""
    growth = Growth()
    for leaf in leaves:
        growth.append(leaf)
    return growth


def probes(folder: Path) -> list[Path]:
    """Every probe below *folder*; there must be some."""
    found = sorted(folder.rglob("*.json"))
    assert found
    return found


def test_inclusion_probes(vectors):
    """Every inclusion probe of transparency-dev is answered as it demands."""
    wrong = []
    for file in probes(vectors / "merkle" / "inclusion"):
        probe = json.loads(file.read_text())
        hashes = [base64.b64decode(item) for item in probe["proof"] or []]
        leaf, root = base64.b64decode(probe["leafHash"]), base64.b64decode(probe["root"])
        try:
            check_inclusion(leaf, probe["leafIdx"], probe["treeSize"], hashes, root)
            accepted = True
        except ProofError:
            accepted = False
        if accepted == probe["wantErr"]:
            wrong.append(str(file))

    assert wrong == []


def test_consistency_probes(vectors):
    """Every consistency probe of transparency-dev is answered as it demands."""
    wrong = []
    for file in probes(vectors / "merkle" / "consistency"):
        probe = json.loads(file.read_text())
        hashes = [base64.b64decode(item) for item in probe["proof"] or []]
        roots = (base64.b64decode(probe["root1"]), base64.b64decode(probe["root2"]))
        try:
            check_consistency(probe["size1"], probe["size2"], *roots, hashes)
            accepted = True
        except ProofError:
            accepted = False
        if accepted == probe["wantErr"]:
            wrong.append(str(file))

    assert wrong == []


@pytest.mark.parametrize("size", [*range(1, 35), 63, 64, 65, 127, 128, 129, 255, 256, 257])
def test_proofs_are_those_of_the_recursive_definition(size):
    """Root, every path and every consistency proof equal the RFC's recursive definition."""
    leaves = numbered(size)
    growth = grown(leaves)
    prover = Prover(size, growth.node)
    step = 1 if size < 64 else 13

    assert prover.root == mth(leaves) == growth.frontier().root == root_of(leaves)
    for index in range(0, size, step):
        assert list(prover.inclusion(index)) == path(index, leaves)
    for old in range(1, size + 1, step):
        assert list(prover.consistency(old)) == subproof(old, leaves, whole=True)


@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=8))
def test_batches_do_not_change_the_tree(sizes):
    """However records fall into batches, tree, frontier and strata are the same."""
    leaves = numbered(sum(sizes))
    growth, taken = Growth(), 0
    for size in sizes:
        growth = Growth.of(growth.frontier())
        for leaf in leaves[taken : taken + size]:
            growth.append(leaf)
        taken += size

    assert growth.frontier() == grown(leaves).frontier()
    assert growth.frontier().root == mth(leaves)


@given(size=st.integers(1, 300), data=st.data())
def test_a_proof_shows_one_leaf_at_one_index_of_one_size(size, data):
    """A path proves its own leaf, index and size, and no other of them."""
    leaves = numbered(size)
    prover = Prover(size, grown(leaves).node)
    index = data.draw(st.integers(0, size - 1))
    other = data.draw(st.integers(0, size - 1).filter(lambda found: found != index or size == 1))
    hashes = prover.inclusion(index)

    check_inclusion(leaves[index], index, size, hashes, prover.root)
    if size > 1:
        with pytest.raises(ProofError):
            check_inclusion(leaves[index], other, size, hashes, prover.root)
        with pytest.raises(ProofError):
            check_inclusion(leaves[other], index, size, hashes, prover.root)


@given(size=st.integers(2, 300), data=st.data())
def test_consistency_of_every_prefix(size, data):
    """A tree extends each of its prefixes and nothing else of that size."""
    leaves = numbered(size)
    prover = Prover(size, grown(leaves).node)
    old = data.draw(st.integers(1, size))
    old_root = root_of(leaves[:old])
    hashes = prover.consistency(old)

    check_consistency(old, size, old_root, prover.root, hashes)
    with pytest.raises(ProofError):
        check_consistency(old, size, leaf_hash(b"other"), prover.root, hashes)


def test_strata_are_the_nodes_of_every_eighth_level():
    """A tree of 600 leaves stores two nodes above them, whichever way it is built."""
    leaves = numbered(600)
    spine = Spine()
    for leaf in leaves:
        spine.append(leaf)

    expected = [(8, 0, mth(leaves[:256])), (8, 1, mth(leaves[256:512]))]
    assert spine.strata == grown(leaves).strata == expected
    assert spine.frontier == grown(leaves).frontier()


def test_a_record_made_of_two_hashes_is_no_inner_node():
    """A 64-byte record cannot pass for the inner node whose children it spells."""
    leaves = numbered(4)
    forged = leaves[0] + leaves[1]  # unprefixed trees take this for the parent of both
    prover = Prover(4, grown(leaves).node)
    upper = prover.inclusion(0)[1:]

    assert leaf_hash(forged) != node_hash(leaves[0], leaves[1])
    with pytest.raises(ProofError):
        check_inclusion(leaf_hash(forged), 0, 2, upper, prover.root)
    with pytest.raises(ProofError):
        check_inclusion(leaf_hash(forged), 0, 4, upper, prover.root)


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0), (4, 3)])
def test_refuses_an_index_outside_the_tree(index, size):
    """No path exists for an index that the size excludes."""
    with pytest.raises(ProofError):
        root_from_inclusion(leaf_hash(b""), index, size, [])
    with pytest.raises(ProofError):
        Prover(size, grown(numbered(size)).node).inclusion(index)


@pytest.mark.parametrize("old", [0, 4])
def test_refuses_consistency_with_what_it_cannot_extend(old):
    """Neither the empty tree nor a larger one has a consistency proof."""
    with pytest.raises(ProofError):
        Prover(3, grown(numbered(3)).node).consistency(old)


def test_refuses_a_hash_of_another_length():
    """A proof holds hashes of 32 bytes and nothing else."""
    with pytest.raises(ProofError, match="not 32 bytes"):
        root_from_inclusion(leaf_hash(b""), 0, 2, [b"short"])


def test_the_empty_tree_has_the_root_of_nothing():
    """No leaves: SHA-256 over nothing."""
    assert Frontier().root == root_of([]) == Prover(0, Growth().node).root == EMPTY_ROOT


def test_refuses_peaks_that_do_not_fit_the_size():
    """A frontier has a peak for each bit of its size."""
    with pytest.raises(ProofError):
        Frontier(3, (leaf_hash(b""),))


LEAF, OTHER = bytes([1]) * 32, bytes([2]) * 32


@pytest.mark.parametrize(
    ("index", "size", "path", "said"),
    [
        (1, 1, [], "no record 1"),
        (-1, 1, [], "no record -1"),
        (0, 0, [], "no record 0"),
        (0, 1, [OTHER], "longer than the tree"),
        (0, 2, [OTHER, OTHER], "longer than the tree"),
        (0, 2, [], "shorter than the tree"),
        (2, 4, [OTHER], "shorter than the tree"),
        (0, 2, [OTHER[:31]], "not 32 bytes"),
    ],
)
def test_an_impossible_path_leads_nowhere(index, size, path, said):
    """Each rule by itself: no root is computed that somebody could compare with."""
    with pytest.raises(ProofError, match=said):
        root_from_inclusion(LEAF, index, size, path)


@pytest.mark.parametrize(
    ("old", "new", "proof", "said"),
    [
        (2, 1, [], "not shown to extend"),
        (0, 1, [], "not shown to extend"),
        (2, 2, [OTHER], "not shown to extend"),
        (3, 4, [], "is empty"),
        (1, 2, [OTHER, OTHER], "too long"),
        (1, 4, [OTHER], "too short"),
        (1, 2, [OTHER[:31]], "not 32 bytes"),
    ],
)
def test_an_impossible_consistency_proof_shows_nothing(old, new, proof, said):
    """Each rule by itself, before roots are compared."""
    with pytest.raises(ProofError, match=said):
        check_consistency(old, new, LEAF, OTHER, proof)


def test_the_empty_tree_extends_itself_alone():
    """Two empty trees are consistent when their root is that of nothing."""
    check_consistency(0, 0, EMPTY_ROOT, EMPTY_ROOT, [])

    with pytest.raises(ProofError, match="another root"):
        check_consistency(0, 0, LEAF, LEAF, [])

"""Receipts: what one proves, and every way in which it must not."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger.world import body, hiding

from envelock_ledger.checkpoint import Checkpoint
from envelock_ledger.errors import ProofError
from envelock_ledger.merkle import Growth, Prover, leaf_hash, root_of
from envelock_ledger.note import Signer
from envelock_ledger.proof import Consistency, Receipt
from envelock_ledger.record import splice

SIGNER = Signer("log", Ed25519PrivateKey.from_private_bytes(bytes(32)))
KEY = SIGNER.verifier
OTHER = Signer("log", Ed25519PrivateKey.from_private_bytes(bytes([7] * 32)))
ENTRIES = [hiding(f"r-{number}", sub=f"user {number}", n=number) for number in range(11)]


def record_at(index: int, raw: bytes) -> bytes:
    """A body as the record at *index*; its chains do not matter to a receipt."""
    return splice(
        raw,
        index=index,
        previous=bytes(32),
        sequenced_us=1,
        tenant_previous=bytes(32),
        tenant_position=index,
    )


RECORDS = [record_at(index, entry.body) for index, entry in enumerate(ENTRIES)]
LEAVES = [leaf_hash(record) for record in RECORDS]


def receipt_of(index: int, size: int = 11, seen: int | None = None) -> Receipt:
    """The receipt of a record in the tree of *size*."""
    growth = Growth()
    for leaf in LEAVES[:size]:
        growth.append(leaf)
    prover = Prover(size, growth.node)
    return Receipt(
        index=index,
        record=RECORDS[index],
        openings={o.field: (o.salt, o.value) for o in ENTRIES[index].openings},
        path=prover.inclusion(index),
        checkpoint=Checkpoint("log", size, prover.root).sign(SIGNER),
        consistency=None if seen is None else Consistency(seen, prover.consistency(seen)),
    )


@given(size=st.integers(1, 11), data=st.data())
@settings(max_examples=40)
def test_a_receipt_is_read_as_written_and_verifies(size, data):
    """Text and back, every part in place; the record and its personal fields come out."""
    index = data.draw(st.integers(0, size - 1))
    seen = data.draw(st.none() | st.integers(1, size))
    receipt = receipt_of(index, size, seen)

    again = Receipt.parse(receipt.text())
    found = again.verify(KEY)

    assert again == receipt
    assert found.index == index == found.fields["_i"]
    assert found.openings == {"sub": f"user {index}", "n": index}
    assert found.checkpoint == Checkpoint("log", size, root_of(LEAVES[:size]))


def test_the_text_is_a_tlog_proof():
    """Header, extra, index, path, empty line, checkpoint: the format of C2SP."""
    receipt = receipt_of(2, 3, seen=2)
    lines = receipt.text().split("\n")
    extra = json.loads(base64.b64decode(lines[1].removeprefix("extra ")))

    assert lines[0] == "c2sp.org/tlog-proof@v1"
    assert lines[2] == "index 2"
    assert [base64.b64decode(line) for line in lines[3:4]] == list(receipt.path)
    assert receipt.text().endswith("\n\n" + receipt.checkpoint)
    assert extra["v"] == 1
    assert base64.b64decode(extra["record"]) == RECORDS[2]
    assert extra["consistency"]["from"] == 2


def test_a_receipt_extends_what_was_seen():
    """The log only grew since an earlier checkpoint, and only since that one."""
    found = receipt_of(9, 11, seen=6).verify(KEY)

    found.check_extends(6, root_of(LEAVES[:6]))
    found.check_extends(11, root_of(LEAVES))
    for size, root in [(6, LEAVES[0]), (5, root_of(LEAVES[:5])), (11, LEAVES[0]), (12, LEAVES[0])]:
        with pytest.raises(ProofError):
            found.check_extends(size, root)


def test_a_log_that_forgot_a_record_cannot_extend():
    """A rewritten history of the same length is another root, and no proof leads to it."""
    rewritten = [*LEAVES[:3], leaf_hash(b"other"), *LEAVES[4:6]]
    found = receipt_of(9, 11, seen=6).verify(KEY)

    with pytest.raises(ProofError):
        found.check_extends(6, root_of(rewritten))


SPOILT = {
    "another record": lambda r: replace(r, record=RECORDS[4]),
    "a changed record": lambda r: replace(r, record=r.record.replace(b"acme", b"acmf")),
    "another index": lambda r: replace(r, index=4),
    "an index beyond the tree": lambda r: replace(r, index=11),
    "no path": lambda r: replace(r, path=()),
    "a longer path": lambda r: replace(r, path=(*r.path, bytes(32))),
    "a shorter path": lambda r: replace(r, path=r.path[:-1]),
    "a doubled hash": lambda r: replace(r, path=(r.path[0], *r.path)),
    "a turned path": lambda r: replace(r, path=r.path[::-1]),
    "a short hash": lambda r: replace(r, path=(b"x", *r.path[1:])),
    "a forged salt": lambda r: replace(r, openings={"sub": (bytes(16), "user 5")}),
    "a forged value": lambda r: replace(r, openings={"sub": (r.openings["sub"][0], "eve")}),
    "a stranger's field": lambda r: replace(r, openings={"x": (bytes(16), 1)}),
    "a swapped field": lambda r: replace(r, openings={"n": r.openings["sub"]}),
    "another checkpoint": lambda r: replace(r, checkpoint=receipt_of(5, 10).checkpoint),
    "a stranger's signature": lambda r: replace(
        r, checkpoint=Checkpoint("log", 11, root_of(LEAVES)).sign(OTHER)
    ),
    "a wrong size": lambda r: replace(
        r, checkpoint=Checkpoint("log", 20, root_of(LEAVES)).sign(SIGNER)
    ),
    "another origin": lambda r: replace(
        r, checkpoint=Checkpoint("gol", 11, root_of(LEAVES)).sign(SIGNER)
    ),
    "an unsigned checkpoint": lambda r: replace(r, checkpoint="log\n11\n"),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_refuses_a_receipt_with(spoil):
    """One wrong part, and a receipt proves nothing."""
    with pytest.raises(ProofError):
        spoil(receipt_of(5)).verify(KEY)


@pytest.mark.parametrize(
    "raw",
    [
        record_at(3, body()),
        record_at(0, body()).replace(b":", b": ", 1),
        b"\x00" * 64,
        leaf_hash(b"a") + leaf_hash(b"b"),
        b"",
    ],
)
def test_refuses_a_leaf_that_is_no_record_of_its_place(raw):
    """A signed tree over something else, or over another index, is not believed."""
    note = Checkpoint("log", 1, leaf_hash(raw)).sign(SIGNER)

    with pytest.raises(ProofError):
        Receipt(0, raw, {}, (), note).verify(KEY)


def edited(**changes: object) -> str:
    """The text of a receipt with other members in its extra line."""
    lines = receipt_of(5, seen=3).text().split("\n")
    extra = json.loads(base64.b64decode(lines[1].removeprefix("extra "))) | changes
    extra = {name: value for name, value in extra.items() if value is not None}
    content = json.dumps(extra, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "\n".join([lines[0], "extra " + base64.b64encode(content.encode()).decode(), *lines[2:]])


def respelled(change: Callable[[bytes], bytes]) -> str:
    """The text of a receipt whose extra line is spelled otherwise."""
    lines = receipt_of(5, seen=3).text().split("\n")
    raw = change(base64.b64decode(lines[1].removeprefix("extra ")))
    return "\n".join([lines[0], "extra " + base64.b64encode(raw).decode(), *lines[2:]])


TEXT = receipt_of(5, seen=3).text()


@pytest.mark.parametrize(
    "text",
    [
        "",
        TEXT[:-1],
        TEXT.replace("@v1", "@v2"),
        TEXT.replace("index 5", "index 05"),
        TEXT.replace("index 5", "index -5"),
        TEXT.replace("index 5", "index +5"),
        TEXT.replace("index 5", "index 5 "),
        TEXT.replace("extra ", "extra  "),
        TEXT.replace("extra ", "EXTRA "),
        TEXT.replace("\n", "\r\n"),
        TEXT.replace("\n\n", "\n", 1),
        TEXT.replace("\n\n", "\n\n\n", 1),
        "\n".join([*TEXT.split("\n")[:1], *TEXT.split("\n")[2:]]),
        TEXT + " " * (1 << 20),
        respelled(lambda raw: raw.replace(b",", b", ")),
        respelled(lambda raw: raw + b" "),
        respelled(lambda raw: b'{"v":1,' + raw[1:]),
        respelled(lambda raw: raw.replace(b'"v":1', b'"v":1.0')),
        edited(v=2),
        edited(v=None),
        edited(record=None),
        edited(record="e30"),
        edited(openings=None),
        edited(openings={"sub": "x"}),
        edited(openings={"sub": ["AA=="]}),
        edited(openings={"sub": [1, 2]}),
        edited(openings=[]),
        edited(more=1),
        edited(consistency={"from": 0, "hashes": []}),
        edited(consistency={"from": 3, "hashes": ["AA=="]}),
        edited(consistency={"from": 3, "hashes": ["A" * 43 + "="] * 64}),
        edited(consistency={"from": 3}),
    ],
)
def test_refuses_every_other_text(text):
    """Another version, spelling, order, length or member is not a receipt."""
    with pytest.raises(ProofError):
        Receipt.parse(text).verify(KEY)


def test_a_hostile_extra_line_does_not_exhaust_the_reader():
    """Deep JSON in the extra line is refused."""
    deep = base64.b64encode(b"[" * 100_000).decode()

    with pytest.raises(ProofError):
        Receipt.parse(f"c2sp.org/tlog-proof@v1\nextra {deep}\nindex 0\n\nx")


@given(st.binary(max_size=60), st.integers(0, 2000))
@settings(max_examples=60)
def test_no_alteration_goes_unnoticed(noise, position):
    """Whatever bytes are put into the text, it is refused or it is the same receipt."""
    position %= len(TEXT)
    altered = TEXT[:position] + noise.decode("latin-1") + TEXT[position + len(noise) :]
    try:
        Receipt.parse(altered).verify(KEY).check_extends(3, root_of(LEAVES[:3]))
    except ProofError:
        return
    assert altered == TEXT


def test_openings_do_not_show_in_representations():
    """What is personal stays out of logs and tracebacks."""
    assert "user 5" not in repr(receipt_of(5))
    assert "user 5" not in repr(receipt_of(5).verify(KEY))
    assert "user 5" not in repr(ENTRIES[5])

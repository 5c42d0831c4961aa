"""Verify an envelock ledger without envelock: one file, the standard library and `cryptography`.

    python3 ledger_verify.py export  NOV.jsonl    [KEPT ...] --key KEY [--json]
    python3 ledger_verify.py receipt A.tlog-proof [KEPT ...] --key KEY [--json]
    python3 ledger_verify.py history KEPT ...                --key KEY [--json]

KEY is the log's verifier key, as its owner published it; never take it from what you verify. KEPT
files hold what somebody got from this log at another time: signed checkpoints one after another, a
receipt, an anchor, or an export, whose checkpoint counts. Exit codes: 0 verifies, 6 does not, 4 a
file cannot be read, 2 usage. Written from docs/formats.md; shares no code with the ledger.
"""

import argparse
import base64
import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ("main",)

LARGEST, DEPTH, LARGE = 2**53 - 1, 16, 256
MAX_RECORD, MAX_TEXT, MAX_KEPT = 65_535, 1 << 20, 16 << 20
EMPTY, ZERO = hashlib.sha256().digest(), "0" * 64
RECEIPT, ANCHOR, EXPORT = b"c2sp.org/tlog-proof@v1\n", b"envelock-anchor/1 ", b'{"checkpoint":'
SIZE, HASH, B64 = r"(0|[1-9][0-9]{0,15})", r"[0-9a-f]{64}", r"([A-Za-z0-9+/]+={0,2})"
Told = tuple[list[str], list[str]]  # what holds, and what stays open
OTHERS = "that others were shown this same log: compare checkpoints with theirs (history)"
LINE = re.compile(rb'\{"index":(\d{1,16}),"leaf":"([0-9a-f]{64})","record":(.*)\}\n', re.DOTALL)
NAME, TYPE = r"[^\x00-\x1f\x7f]{1,200}", r"[a-z][a-z0-9.-]{0,63}"
TEXTS = {"id": NAME, "tn": NAME, "typ": TYPE, "_p": HASH, "_tp": HASH}
FIELD = re.compile(r"[a-z]|(?:_i|_of|_p|_t|_tp|_tq)\Z")


class BadError(ValueError):
    """Something does not hold, as does not whatever else raises a `ValueError`."""

    def __init__(self, text: str, **evidence: object) -> None:
        super().__init__(text)
        self.evidence = evidence


def need(condition: object, text: str) -> None:
    if not condition:
        raise BadError(text)


def match(pattern: str, text: object, why: str) -> re.Match[str]:
    found = re.fullmatch(pattern, text) if isinstance(text, str) else None
    if found is None:
        raise BadError(why)
    return found


def shown(text: object) -> str:  # what could steer a terminal is written out
    return "".join(one if one.isprintable() else f"\\u{{{ord(one):x}}}" for one in str(text))


def unb64(text: object, length: int | None = None) -> bytes:
    raw = base64.b64decode(match(rf"{B64}?", text, "malformed base64")[0])
    need(base64.b64encode(raw).decode() == text, "base64 in another spelling")
    need(length in {None, len(raw)}, "bytes of another length")
    return raw


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def digest(label: str, *fields: bytes) -> bytes:
    return sha(label.encode(), *(len(one).to_bytes(4, "big") + one for one in fields))


def canonical(value: object) -> bytes:  # of what `strict` returned, in order already
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def check_value(value: object, depth: int = 0) -> None:
    if isinstance(value, (dict, list)):
        need(depth < DEPTH, "JSON that is too deep")
        for one in value.values() if isinstance(value, dict) else value:
            check_value(one, depth + 1)
    elif isinstance(value, (int, float)):
        need(isinstance(value, int) and abs(value) <= LARGEST, "a fraction, or a number too large")


def strict(raw: bytes) -> Any:  # noqa: ANN401 - any JSON
    """JSON that has one reading, in its one spelling; so a name that occurs twice is noticed."""
    try:
        value = json.loads(raw.decode(), object_pairs_hook=in_order)
    except RecursionError as error:
        raise BadError("JSON that is too deep") from error
    check_value(value)
    need(canonical(value) == raw, "not canonical JSON")
    return value


def in_order(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(sorted(pairs, key=lambda pair: pair[0].encode("utf-16-be")))


def split(size: int) -> int:  # the largest power of two below it
    return 1 << (size - 1).bit_length() - 1


def envelope(raw: bytes) -> dict[str, Any]:
    """Check the fields that every record has."""
    need(len(raw) <= MAX_RECORD, "is too long")
    record = strict(raw)
    need(isinstance(record, dict), "is no object")
    need(all(map(FIELD.match, record)), "has a name that no record has")
    numbers = [record.get("_of", 0), *(record.get(name) for name in ("_i", "_t", "_tq", "ts", "v"))]
    need(all(type(one) is int and one >= 0 for one in numbers), "has a missing or malformed number")
    need(record["v"] == 1, "is of another version")
    for name, pattern in TEXTS.items():
        match(pattern, record.get(name), f"has a missing or malformed {name}")
    moves, hidden = record.get("moves", {}), record.get("c", {})
    need(isinstance(moves, dict) and isinstance(hidden, dict), "has malformed moves or commitments")
    need(all(type(one) is int for one in moves.values()), "has malformed moves")
    need(all(re.fullmatch(HASH, str(one)) for one in hidden.values()), "has malformed commitments")
    return dict(record)


class Records:
    def __init__(self, key: "Key") -> None:  # what the records so far add up to
        self.key, self.leaf, self.time, self.hiding = key, ZERO, 0, 0
        self.ids: set[str] = set()
        self.tenants: dict[str, tuple[str, int]] = {}  # leaf before, and records so far
        self.fences: Counter[str] = Counter()
        self.marks: dict[str, int] = {}  # of erased openings, and by which record
        self.leaves = bytearray()
        self.known: dict[tuple[int, int], bytes] = {}  # roots of larger subtrees

    def add(self, line: bytes) -> None:
        """Check the next line of an export."""
        found, index = LINE.fullmatch(line), len(self.ids)
        if found is None or found[1] != b"%d" % index:
            raise BadError("is cut short, malformed or out of place" if line else "is missing")
        leaf = sha(b"\x00", found[3])
        need(leaf == bytes.fromhex(found[2].decode()), "does not match its leaf")
        record = envelope(found[3])
        tenant, chain = record["tn"], (record["_tp"], record["_tq"])
        need(record["_i"] == index, f"says that it is record {record['_i']}")
        need(record["_p"] == self.leaf, "does not follow the record before it")
        need(chain == self.tenants.get(tenant, (ZERO, 0)), f"breaks the chain of tenant {tenant}")
        need(record["_t"] >= self.time, "was sequenced before the record in front of it")
        need(record.get("_of", -1) < index, "repeats a later record")
        need(record["id"] not in self.ids, "has the id of an earlier record")
        for name, number in record.get("moves", {}).items():
            need(number == self.fences[name] + 1, f"moves fence {name} out of turn")
            self.fences[name] = number
        self.check_type(record, index)
        self.ids.add(record["id"])
        self.leaf, self.time = leaf.hex(), record["_t"]
        self.tenants[tenant] = (self.leaf, chain[1] + 1)
        self.hiding += bool(record.get("c"))
        self.leaves += leaf

    def check_type(self, record: dict[str, Any], index: int) -> None:
        told = [record.get(name) for name in ("typ", "id", "origin", "ledger_key", "schema", "tn")]
        genesis = ["ledger.genesis", "genesis", self.key.name, self.key.text, 1, "-"]
        need(index or told == genesis, "is not the genesis of this log and key")
        need(not index or not record["typ"].startswith("ledger."), "is of an unknown ledger type")
        if (record["typ"], record.get("topic")) == ("subject.erased", "erasure"):
            marks: Any = record.get("marks")
            need(isinstance(marks, list), "erases nothing")
            self.marks |= {match("[0-9a-f]{32}", one, "malformed mark")[0]: index for one in marks}

    def root(self, start: int, stop: int) -> bytes:
        """The root over leaves `start:stop`: RFC 9162 section 2.1.1."""
        if stop - start <= 1:
            return bytes(self.leaves[32 * start : 32 * stop]) or EMPTY
        if (start, stop) in self.known:
            return self.known[start, stop]
        middle = start + split(stop - start)
        root = sha(b"\x01", self.root(start, middle), self.root(middle, stop))
        if stop - start >= LARGE:
            self.known[start, stop] = root
        return root

    def proof(self, first: int, start: int, stop: int, *, whole: bool = True) -> list[str]:
        """That leaves `start:stop` extend the first of them: RFC 9162 section 2.1.4.1."""
        if first == stop - start:
            return [] if whole else [self.root(start, stop).hex()]
        middle = start + split(stop - start)
        if start + first <= middle:
            below = self.proof(first, start, middle, whole=whole)
            return [*below, self.root(middle, stop).hex()]
        above = self.proof(start + first - middle, middle, stop, whole=False)
        return [*above, self.root(start, middle).hex()]


class Key(NamedTuple):
    text: str
    name: str
    key_id: bytes
    public: Ed25519PublicKey


class Checkpoint(NamedTuple):
    size: int
    root: bytes
    note: str
    where: str
    mark: str = ""  # under which an erasure names the record whose receipt it came in


def verifier_key(text: str) -> Key:
    found = match(rf"([^\s+]+)\+([0-9a-f]{{8}})\+{B64}", text, "expected NAME+HEXID+BASE64")
    raw = unb64(found[3], 33)
    key_id = sha(found[1].encode(), b"\n", raw)[:4]
    need(shown(text) == text and raw[0] == 1 and key_id.hex() == found[2], "malformed key")
    return Key(text, found[1], key_id, Ed25519PublicKey.from_public_bytes(raw[1:]))


def read_note(note: str, key: Key, where: str) -> Checkpoint:
    """Verify a signed checkpoint."""
    text, blank, tail = note.rpartition("\n\n")
    *lines, end = tail.split("\n")
    clean = not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", note)
    need(blank and lines and not end and clean, f"{where}: not a signed checkpoint")
    told = [match(rf"— ([^\s+]+) {B64}", one, f"{where}: malformed signature") for one in lines]
    blobs = [unb64(one[2]) for one in told if one[1] == key.name]
    ours = [blob[4:] for blob in blobs if blob[:4] == key.key_id]
    need(ours, f"{where}: not signed by {key.name}+{key.key_id.hex()}")
    try:
        for one in ours:
            key.public.verify(one, f"{text}\n".encode())
    except InvalidSignature as error:
        raise BadError(f"{where}: the signature does not verify") from error
    found = match(rf"([^\n]+)\n{SIZE}\n([^\n]+)", text, f"{where}: not a checkpoint")
    size, root = int(found[2]), unb64(found[3], 32)
    need(found[1] == key.name, f"{where}: a checkpoint of another log")
    need(size <= LARGEST and (size or root == EMPTY), f"{where}: impossible size")
    return Checkpoint(size, root, note, where)


def root_of(leaf: bytes, index: int, size: int, path: Iterator[bytes]) -> bytes:
    """The root that *path*, from the leaf upwards, leads to: RFC 9162 section 2.1.3."""
    if size == 1:
        return leaf
    left = split(size)
    if index < left:
        return sha(b"\x01", root_of(leaf, index, left, path), next(path, b""))
    right = root_of(leaf, index - left, size - left, path)
    return sha(b"\x01", next(path, b""), right)


def read_receipt(raw: bytes, key: Key, where: str) -> tuple[Checkpoint, dict[str, Any], Any]:
    """Verify a receipt: its checkpoint, its record, and what opens hidden fields."""
    head, _, note = raw.decode("utf-8", "replace").partition("\n\n")
    pattern = rf"[^\n]+\nextra {B64}\nindex {SIZE}((?:\n[^\n]{{44}}){{0,63}})"
    found = match(pattern, head, f"{where}: malformed receipt")
    extra, signed, index = strict(unb64(found[1])), read_note(note, key, where), int(found[2])
    need(isinstance(extra, dict) and extra.get("v") == 1, f"{where}: malformed receipt")
    body, openings = unb64(extra.get("record")), extra.get("openings")
    record, path = envelope(body), iter([unb64(one, 32) for one in found[3].split()])
    need(index < signed.size and record["_i"] == index, f"{where}: the path is of another record")
    root = root_of(sha(b"\x00", body), index, signed.size, path)
    need(root == signed.root and not next(path, b""), f"{where}: not in the log that was signed")
    need(isinstance(openings, dict), f"{where}: malformed openings")
    for name, pair in openings.items():
        need(isinstance(pair, list) and len(pair) == len("sv"), f"{where}: malformed openings")
        fields = name.encode(), unb64(pair[0], 16), canonical(pair[1])
        told = digest("envelock/commitment/v1", *fields).hex()
        need(record.get("c", {}).get(name) == told, f"{where}: the opening of {name} is not true")
    salt = unb64(openings["sub"][0]) if "sub" in openings else b""
    mark = digest("envelock/erased/v1", index.to_bytes(8, "big"), salt).hex()[:32]
    return signed._replace(mark=mark), record, openings


def read_header(line: bytes, key: Key, where: str) -> Checkpoint:
    """Verify the checkpoint at the head of an export."""
    need(line.startswith(EXPORT), f"{where}: not an export")
    told = strict(line.removesuffix(b"\n"))
    need(told.keys() == {"checkpoint", "format"}, f"{where}: malformed first line")
    need(told["format"] == "envelock-export/1", f"{where}: of another version")
    return read_note(str(told["checkpoint"]), key, where)


def read_kept(path: Path, key: Key) -> list[Checkpoint]:
    """Verify every checkpoint in a file that somebody kept."""
    where = shown(path.name)
    with path.open("rb") as file:
        raw = file.readline(MAX_KEPT)
        if raw.startswith(EXPORT):
            return [read_header(raw, key, where)]
        raw += file.read(MAX_KEPT)
    need(len(raw) < MAX_KEPT, f"{where}: too long")
    if raw.startswith(RECEIPT):
        return [read_receipt(raw, key, where)[0]]
    if raw.startswith(ANCHOR):
        head, *lines = raw.decode("utf-8", "replace").split("\n")
        need(head == f"{ANCHOR.decode()}{key.text}", f"{where}: the anchor of another key")
        told = [match("(.+) (.+) (.+)", one, f"{where}: malformed") for one in lines[:-1]]
        notes = [f"{key.name}\n{one[1]}\n{one[2]}\n\n— {key.name} {one[3]}\n" for one in told]
    else:
        head, *parts = f"\n{raw.decode('utf-8', 'replace')}".split(f"\n{key.name}\n")
        need(parts and not head.strip(), f"{where}: not checkpoints of {key.name}")
        notes = [f"{key.name}\n{one.rstrip()}\n" for one in parts]
    found = [read_note(one, key, f"{where}:{at}") for at, one in enumerate(notes, 1)]
    onwards = found == sorted(found, key=lambda one: one.size)
    need(onwards or not raw.startswith(ANCHOR), f"{where}: the anchor goes back")
    return found


def compare(one: Checkpoint, other: Checkpoint, told: bytes, **more: object) -> None:
    """Refuse *one* unless its root is *told*, to which *other* commits."""
    if one.root != told:
        text = f"these two signed checkpoints cannot both be true: {one.where} and {other.where}"
        raise BadError(text, checkpoints=[one.note, other.note], **more)


def verify_export(path: Path, key: Key, kept: list[Checkpoint]) -> Told:
    where, records = shown(path.name), Records(key)
    with path.open("rb") as file:
        signed = read_header(file.readline(MAX_TEXT), key, where)
        while (size := len(records.ids)) < signed.size:
            try:
                records.add(file.readline(MAX_TEXT))
            except ValueError as error:
                raise BadError(f"{where}: record {size}: {error}; {size} before it hold") from error
        need(not file.read(1), f"{where}: more follows than was signed")
    root, marks = records.root(0, size), records.marks
    need(root == signed.root, f"{where}: the root of these {size} records is not what was signed")
    tenants = len(records.tenants.keys() - {"-"})
    ok = [f"{size} records: leaves, chain, {tenants} tenant chains, time, fences"]
    ok.append(f"their root {root.hex()} was signed by {key.name}+{key.key_id.hex()}")
    ok += [f"record {at} erased {count} openings" for at, count in Counter(marks.values()).items()]
    for one in kept:
        need(one.size <= size, f"records {size}-{one.size - 1} are missing, signed in {one.where}")
        here = records.root(0, one.size)
        proof = [] if one.root == here else records.proof(one.size, 0, size)
        compare(one, signed, here, size=one.size, root=here.hex(), proof=proof)
        if one.mark in marks:
            ok.append(f"{one.where}: opening erased, by record {marks[one.mark]}")
    ends = {one.where.partition(":")[0]: one.size for one in sorted(kept, key=lambda one: one.size)}
    ok += [f"extends {name}: {end} records, none rewritten" for name, end in ends.items()]
    unseen = [f"that no record after these {size} was dropped: no later checkpoint was shown"]
    unseen += [] if kept else ["that none was rewritten before this was signed: nothing was kept"]
    return ok, [*unseen, OTHERS, f"who is hidden in {records.hiding} records; what is true"]


def verify_receipt(path: Path, key: Key, kept: list[Checkpoint]) -> Told:
    with path.open("rb") as file:
        signed, record, openings = read_receipt(file.read(MAX_TEXT), key, shown(path.name))
    verify_history([signed, *kept])
    hidden = sorted(record.get("c", {}).keys() - openings.keys())
    ok = [f"record {record['_i']} of {signed.size}, {record['typ']}: in the log that was signed"]
    ok += [f"{name} opens to {canonical(value).decode()}" for name, (_, value) in openings.items()]
    ok += [f"{name} stays hidden: its opening was erased, or is not shown" for name in hidden]
    return ok, ["all other records, and what became of this one: an export shows it", OTHERS]


def verify_history(kept: list[Checkpoint]) -> Told:
    firsts: dict[int, Checkpoint] = {}
    for one in kept:
        compare(one, first := firsts.setdefault(one.size, one), first.root)
    most = f"{len(kept)} checkpoints, up to {max(firsts, default=0)} records"
    unseen = ["that one size grew out of another: give them beside an export", OTHERS]
    return [f"{most}: all are signed, and no two of one size differ"], unseen


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify what the command line names; the exit code."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("what", choices=("export", "receipt", "history"))
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--key", required=True, type=verifier_key, help="NAME+HEXID+BASE64")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args(arguments)
    code, verify = 0, {"export": verify_export, "receipt": verify_receipt}.get(asked.what)
    told: dict[str, Any] = {"ok": [], "fails": None, "evidence": {}, "cannot_conclude": []}
    try:
        paths = asked.files[1:] if verify else asked.files
        kept = [one for path in paths for one in read_kept(path, asked.key)]
        told["ok"], told["cannot_conclude"] = verify_history(kept)
        if verify:
            told["ok"], told["cannot_conclude"] = verify(asked.files[0], asked.key, kept)
    except (OSError, ValueError) as error:
        code, told["ok"] = 4 if isinstance(error, OSError) else 6, []
        told["fails"], told["evidence"] = str(error), getattr(error, "evidence", {})
    lines = [f"ok    {one}" for one in told["ok"]] + [f"FAIL  {told['fails']}"] * bool(code)
    for name, value in told["evidence"].items():
        lines += [f"      {name}: {one}" for one in (value if isinstance(value, list) else [value])]
    lines += [f"open  cannot conclude {one}" for one in told["cannot_conclude"]]
    sys.stdout.write("\n".join([json.dumps(told)] if asked.json else map(shown, lines)) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())

"""The auditor's program: alone, small, and calm whatever it is given."""

import ast
import asyncio
import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from independent.test_independent import ALONE
from ledger.auditor import PROGRAM, audit, printed
from ledger.world import World, entry, fill, hiding, place_in

from envelock_formats.canonical import encode
from envelock_ledger.checkpoint import Checkpoint
from envelock_ledger.exporting import write_export
from envelock_ledger.merkle import leaf_hash, root_of
from envelock_ledger.proof import Receipt
from envelock_ledger.store.sqlite import SqliteStore

ROOT = PROGRAM.parents[1]
FILES = {"export": "x.jsonl", "receipt": "r.tlog-proof", "history": "kept"}


async def make(world: World, folder: Path) -> None:
    """One of each file, of a small log."""
    writer = await world.start()
    note = await writer.head()
    await writer.append([hiding("r-1", sub=["i", "ann"], addr="ü"), entry(moves={"f": 1})])
    (folder / "kept").write_text(note + "\n" + await writer.head())
    await fill(writer, 9)
    (folder / "r.tlog-proof").write_text((await writer.prove(1)).text())
    await writer.snapshot(folder / "copy")
    await writer.aclose()
    store = SqliteStore.read(folder / "copy")
    write_export(store, store.checkpoint() or "", folder / "x.jsonl")
    store.close()
    shutil.copy(world.place.anchor, folder / "anchored")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with those files, and the log's key."""
    folder = tmp_path_factory.mktemp("made")
    world = World(place_in(folder))
    asyncio.run(make(world, folder))
    (folder / "key").write_text(str(world.signer.verifier))
    return folder


@pytest.fixture(scope="module")
def key(made: Path) -> str:
    """The pinned key."""
    return (made / "key").read_text()


def test_it_runs_where_nothing_of_ours_is_installed(made, key, tmp_path):
    """A copy of the one file, away from the repository, with our packages unimportable."""
    copy = shutil.copy(PROGRAM, tmp_path / "ledger_verify.py")
    for what, name in FILES.items():
        line = [sys.executable, "-I", "-c", ALONE, copy, what, made / name, "--key", key]
        done = subprocess.run(line, capture_output=True, text=True, check=False, cwd="/")

        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("ok    ")


def test_it_shares_nothing_with_the_ledger():
    """Its imports are the standard library and `cryptography`, and it is short enough to read."""
    text = PROGRAM.read_text("utf-8")
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
    roots = {name.partition(".")[0] for name in found}

    assert roots - set(sys.stdlib_module_names) == {"cryptography"}
    assert len(text.splitlines()) < 400


def test_it_accepts_what_the_golden_vectors_hold(tmp_path):
    """The frozen receipts, checkpoint, anchor and export, which are of one log."""
    vectors = ROOT / "tests" / "vectors"
    named = {name: json.loads((vectors / f"{name}.json").read_bytes())["cases"] for name in (
        "receipt", "checkpoint", "anchor", "export")}  # fmt: skip
    [checkpoint] = [one["out"] for one in named["checkpoint"] if one["name"] == "of five records"]
    (tmp_path / "kept").write_text(checkpoint["note"])
    for number, case in enumerate(named["receipt"]):
        (tmp_path / f"r{number}").write_text(case["out"]["receipt"])
    for number, case in enumerate(named["anchor"]):
        (tmp_path / f"a{number}").write_text(case["out"]["file"])
    (tmp_path / "x").write_text(named["export"][0]["out"]["file"])
    files = sorted(path for path in tmp_path.iterdir() if path.name != "x")

    found = audit("export", tmp_path / "x", *files, key=checkpoint["verifier_key"])
    assert found.code == 0
    assert {line.split(":")[0] for line in found.holds[2:]} == {f"extends {p.name}" for p in files}
    for path in tmp_path.glob("r*"):
        assert audit("receipt", path, key=checkpoint["verifier_key"]).code == 0


def test_usage_is_exit_2(made, key):
    """No file, no key, a key that is none, an unknown command."""
    broken = [key[:-4] + "AAAA", "log+0+a", key.replace("envelock", "\u202eenvelock"), "", "é+0+="]

    assert [printed("export", made / "x.jsonl", key=one)[0] for one in broken] == [2] * len(broken)
    assert printed("export", key=key)[0] == 2
    assert printed("burn", made / "x.jsonl", key=key)[0] == 2


def test_a_file_that_cannot_be_read_is_exit_4(made, key, tmp_path):
    """Missing, or a folder, wherever it is named."""
    for what, name in FILES.items():
        for path in (tmp_path / "none", tmp_path):
            assert printed(what, path, key=key)[0] == 4
            assert printed(what, made / name, path, key=key)[0] == 4


@pytest.mark.parametrize("what", FILES)
def test_a_file_of_another_kind_is_exit_6(made, key, what):
    """It does not verify as what it was called."""
    others = {"copy", *FILES.values(), "anchored"} - {FILES[what]}
    for name in others if what != "history" else {"copy"}:
        assert audit(what, made / name, key=key).code == 6


def test_people_and_programs_are_told_the_same(made, key):
    """One line for each thing, or one JSON object."""
    code, text = printed("export", made / "x.jsonl", made / "kept", key=key)
    found = audit("export", made / "x.jsonl", made / "kept", key=key)

    assert code == found.code == 0
    assert text.splitlines() == [f"ok    {one}" for one in found.holds] + [
        f"open  cannot conclude {one}" for one in found.cannot_conclude
    ]


def test_an_anchor_that_goes_back_is_refused(made, key, tmp_path):
    """Its lines are in the order in which they were signed."""
    head, *lines = (made / "anchored").read_text().splitlines()
    (tmp_path / "back").write_text("\n".join([head, *reversed(lines), ""]))
    (tmp_path / "torn").write_text("\n".join([head, *lines, lines[-1][:-9]]))
    (tmp_path / "foreign").write_text("\n".join([head[:-1], *lines, ""]))

    assert audit("history", tmp_path / "back", key=key).fails == "back: the anchor goes back"
    assert audit("history", tmp_path / "torn", key=key).code == 0
    assert "another key" in audit("history", tmp_path / "foreign", key=key).fails


def test_kept_notes_may_stand_apart(made, key, tmp_path):
    """With or without empty lines between them, but with nothing else."""
    text = (made / "kept").read_text()
    (tmp_path / "close").write_text(text.replace("\n\nenvelock", "\nenvelock"))
    (tmp_path / "apart").write_text(f"\n\n{text}\n\n")
    (tmp_path / "noise").write_text(f"{text}what is this\n")
    (tmp_path / "front").write_text(f"what is this\n{text}")

    assert audit("history", tmp_path / "close", key=key).holds[0].startswith("2 checkpoints")
    assert audit("history", tmp_path / "apart", key=key).holds[0].startswith("2 checkpoints")
    assert audit("history", tmp_path / "noise", key=key).code == 6
    assert audit("history", tmp_path / "front", key=key).code == 6


def exported(made: Path, tmp_path: Path, change: dict[str, object]) -> Path:
    """An export whose last record has other fields, signed anew by the log's own key."""
    last = json.loads((made / "x.jsonl").read_bytes().splitlines()[-1])["record"] | change
    record = {name: value for name, value in last.items() if value is not None}
    return ending_in(made, tmp_path, encode(record))


def ending_in(made: Path, tmp_path: Path, record: bytes) -> Path:
    """An export whose last record is *record*, signed anew by the log's own key."""
    lines = (made / "x.jsonl").read_bytes().splitlines()[1:-1]
    leaves = [bytes.fromhex(json.loads(line)["leaf"]) for line in lines] + [leaf_hash(record)]
    signer = World(place_in(made)).signer
    note = Checkpoint(signer.verifier.name, len(leaves), root_of(leaves)).sign(signer)
    head = encode({"checkpoint": note, "format": "envelock-export/1"})
    leaf = leaves[-1].hex().encode()
    last = b'{"index":%d,"leaf":"%b","record":%b}' % (len(lines), leaf, record)
    path = tmp_path / "signed.jsonl"
    path.write_bytes(b"\n".join([head, *lines, last, b""]))
    return path


FIELDS = {
    "_i": (9, -1, "8", True),
    "_p": ("0" * 64, "", 7, None),
    "_t": (0, -1, None),
    "_tp": ("0" * 64, None, "A" * 64),
    "_tq": (0, None),
    "_of": (8, 9, "1"),
    "_x": (1,),
    "X": (1,),
    "c": ([], {"sub": "a"}, {"sub": 1}),
    "id": ("r-1", "", None, 1, "a\nb", "x" * 201),
    "moves": ({"f": 3}, {"f": 1}, {"g": 2}, {"f": "2"}, {"g": True}, []),
    "tn": ("", None, "other"),
    "ts": (None, -1),
    "typ": ("ledger.genesis", "ledger.key", "", "A", "x" * 65),
    "v": (2, 0, None, True),
}


@pytest.mark.parametrize(("field", "values"), FIELDS.items())
def test_each_field_of_a_record_is_checked_though_it_is_signed(made, tmp_path, key, field, values):
    """The log's own key over a record that the format does not allow."""
    assert audit("export", exported(made, tmp_path, {"extra": 1}), key=key).code == 0

    for value in values:
        found = audit("export", exported(made, tmp_path, {field: value}), key=key)

        assert found.code == 6, value
        assert found.fails.startswith("signed.jsonl: record 8: "), (value, found.fails)


SPELLINGS = [
    b'{"a":1.0}',
    b'{"a":1,"a":1}',
    b'{"b":1,"a":1}',
    b'{"a": 1}',
    b'{"a":1e3}',
    b'{"a":NaN}',
    b'{"a":"\\u0041"}',
    b'{"a":"\\ud800"}',
    b'{"a":"\xff"}',
    b'{"a":-0}',
    b'{"a":9007199254740992}',
    b'{"a":%b}' % (b"9" * 5000),
    b"[" * 17 + b"]" * 17,
    b"[" * 60_000,
    b'"' + b"x" * 60_000,
    b"",
    b"null",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_json_with_two_readings_is_refused_though_it_is_signed(made, tmp_path, key, spelling):
    """Strict JSON in its one spelling, and nothing that costs more than it weighs."""
    last = json.loads((made / "x.jsonl").read_bytes().splitlines()[-1])["record"]
    record = spelling
    if spelling.startswith(b'{"'):
        record = encode(last)[:-1] + b',"z":' + spelling + b"}"

    found = audit("export", ending_in(made, tmp_path, record), key=key)

    assert found.code == 6
    assert found.fails.startswith("signed.jsonl: record 8: ")


RECEIPTS = {
    "no extra": (b"extra ", b"more "),
    "another index": (b"index 1\n", b"index 2\n"),
    "an index with a sign": (b"index 1\n", b"index +1\n"),
    "an index beyond the end": (b"index 1\n", b"index 9\n"),
    "a shorter path": (b"index 1\n", b"index 1"),
    "a longer path": (b"index 1\n", b"index 1\n" + base64.b64encode(bytes(32)) + b"\n"),
    "a size": (b"\n9\n", b"\n8\n"),
    "a signature": ("— ".encode(), b"- "),
    "no signature": ("— ".encode(), b""),
}


@pytest.mark.parametrize("change", RECEIPTS)
def test_a_changed_receipt_is_refused(made, tmp_path, key, change):
    """One replacement in it."""
    content = (made / "r.tlog-proof").read_bytes()
    assert RECEIPTS[change][0] in content
    (tmp_path / "r").write_bytes(content.replace(*RECEIPTS[change], 1))

    assert audit("receipt", tmp_path / "r", key=key).code == 6


def receipt_of(made: Path, tmp_path: Path, change: Callable[[dict], object]) -> Path:
    """The receipt with another `extra`."""
    head, line, rest = (made / "r.tlog-proof").read_text().split("\n", 2)
    extra = json.loads(base64.b64decode(line.removeprefix("extra ")))
    text = base64.b64encode(encode(change(extra)))
    path = tmp_path / "r"
    path.write_text(f"{head}\nextra {text.decode()}\n{rest}")
    return path


EXTRAS = {
    "another version": lambda extra: extra | {"v": 2},
    "no version": lambda extra: {name: extra[name] for name in ("record", "openings")},
    "a list": lambda extra: [extra],
    "no record": lambda extra: {name: extra[name] for name in ("openings", "v")},
    "a record that is not text": lambda extra: extra | {"record": 1},
    "a record in another spelling": lambda extra: extra | {"record": extra["record"] + "="},
    "no openings": lambda extra: {name: extra[name] for name in ("record", "v")},
    "openings in a list": lambda extra: extra | {"openings": []},
    "a salt alone": lambda extra: extra | {"openings": {"sub": extra["openings"]["sub"][:1]}},
    "a value too many": lambda extra: extra | {"openings": {"sub": [*extra["openings"]["sub"], 1]}},
    "an opening that is text": lambda extra: extra | {"openings": {"sub": "ab"}},
    "another value": lambda extra: extra | {"openings": {"sub": [extra["openings"]["sub"][0], 1]}},
    "a long salt": lambda extra: extra | {"openings": {"sub": ["A" * 24, 1]}},
    "a field that is not hidden": lambda extra: extra | {"openings": {"x": ["A" * 22 + "==", 1]}},
}


@pytest.mark.parametrize("change", EXTRAS)
def test_another_extra_is_refused(made, tmp_path, key, change):
    """What is in a receipt beside the proof is held to the record, or refused."""
    assert audit("receipt", receipt_of(made, tmp_path, lambda extra: extra), key=key).code == 0

    found = audit("receipt", receipt_of(made, tmp_path, EXTRAS[change]), key=key)

    assert found.code == 6


def test_a_record_that_says_it_is_another_is_refused(made, tmp_path, key):
    """A tree in which a record stands where it does not belong."""
    record = json.loads((made / "x.jsonl").read_bytes().splitlines()[-1])["record"]
    body = encode(record)
    signer = World(place_in(made)).signer
    note = Checkpoint(signer.verifier.name, 1, leaf_hash(body)).sign(signer)
    lie = Receipt(index=0, record=body, openings={}, path=(), checkpoint=note)
    (tmp_path / "r").write_text(lie.text())

    found = audit("receipt", tmp_path / "r", key=key)

    assert found.fails == "r: the path is of another record"


def test_a_record_that_is_too_long_is_refused(made, tmp_path, key):
    """65,535 bytes, and not one more."""
    last = json.loads((made / "x.jsonl").read_bytes().splitlines()[-1])["record"]
    room = 65_535 - len(encode(last | {"zz": ""}))

    longest = ending_in(made, tmp_path, encode(last | {"zz": "x" * room}))
    fits = audit("export", longest, key=key)
    over = audit("export", exported(made, tmp_path, {"zz": "x" * (room + 1)}), key=key)

    assert fits.code == 0
    assert "record 8: is too long" in over.fails


def test_json_has_sixteen_levels(made, tmp_path, key):
    """The record itself is one of them."""
    deep: list = []
    for _ in range(14):
        deep = [deep]

    assert audit("export", exported(made, tmp_path, {"z": deep}), key=key).code == 0
    assert audit("export", exported(made, tmp_path, {"z": [deep]}), key=key).code == 6


def test_more_than_was_signed_is_refused(made, tmp_path, key):
    """Not a line after the last, nor an empty one."""
    content = (made / "x.jsonl").read_bytes()
    for more in (b"\n", b" ", content.splitlines(keepends=True)[-1]):
        (tmp_path / "x").write_bytes(content + more)

        assert audit("export", tmp_path / "x", key=key).fails == "x: more follows than was signed"


def test_what_was_kept_may_not_be_endless(tmp_path, key):
    """16 MiB of checkpoints are enough for anybody."""
    with (tmp_path / "endless").open("wb") as file:
        file.truncate(20 << 20)

    assert audit("history", tmp_path / "endless", key=key).fails == "endless: too long"
    assert audit("export", tmp_path / "endless", key=key).code == 6
    assert audit("receipt", tmp_path / "endless", key=key).code == 6


def test_texts_that_are_signed_and_are_no_checkpoint_are_refused(made, tmp_path, key):
    """Another origin, an impossible size, an empty tree with a root, other lines."""
    signer = World(place_in(made)).signer
    name, root = signer.verifier.name, base64.b64encode(bytes(32)).decode()
    texts = [
        f"other\n1\n{root}\n",
        f"{name}\n{2**53}\n{root}\n",
        f"{name}\n0\n{root}\n",
        f"{name}\n01\n{root}\n",
        f"{name}\n+1\n{root}\n",
        f"{name}\n\u0661\n{root}\n",
        f"{name}\n1\n{root[:-4]}\n",
        f"{name}\n1\n{root[:-2]}B=\n",
        f"{name}\n1\n{root}\nmore\n",
        f"{name}\n1\n",
    ]
    for text in texts:
        head = encode({"checkpoint": signer.sign(text), "format": "envelock-export/1"})
        (tmp_path / "x").write_bytes(head + b"\n")

        assert audit("export", tmp_path / "x", key=key).code == 6, text
        assert audit("history", tmp_path / "x", key=key).code == 6, text


FIRST_LINES = {
    "more members": {"checkpoint": "", "format": "envelock-export/1", "more": 1},
    "fewer": {"checkpoint": ""},
    "a number": {"checkpoint": 1, "format": "envelock-export/1"},
    "no signature": {"checkpoint": "a\n0\nb\n", "format": "envelock-export/1"},
    "a control character": {"checkpoint": "a\r\n0\n\n— a b\n", "format": "envelock-export/1"},
}


@pytest.mark.parametrize("change", FIRST_LINES)
def test_another_first_line_is_refused(tmp_path, key, change):
    """It is the one thing that an export says of itself."""
    (tmp_path / "x").write_bytes(encode(FIRST_LINES[change]) + b"\n")

    assert audit("export", tmp_path / "x", key=key).code == 6


@pytest.mark.parametrize("marks", [None, "a", [1], ["a"], ["A" * 32], {}])
def test_a_malformed_erasure_is_refused(made, tmp_path, key, marks):
    """A record of the topic says which openings went, or it is none."""
    erasure = {"typ": "subject.erased", "topic": "erasure"}
    good = exported(made, tmp_path, erasure | {"marks": ["a" * 32, "b" * 32]})
    assert "record 8 erased 2 openings" in audit("export", good, key=key).holds

    bad = exported(made, tmp_path, erasure | {"marks": marks})

    assert audit("export", bad, key=key).code == 6
    assert audit("export", exported(made, tmp_path, {"typ": "subject.erased"}), key=key).code == 0


def test_what_steers_a_terminal_is_written_out(made, tmp_path, key):
    """Values of others cannot move the cursor."""
    path = exported(made, tmp_path, {"tn": "evil\u202e\u2028"})

    code, text = printed("export", path, key=key)

    assert code == 6
    assert "evil\\u{202e}\\u{2028}" in text


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from([*FILES.items(), ("history", "anchored"), ("history", "x.jsonl")]),
    at=st.floats(0, 1),
    cut=st.integers(0, 40),
    put=st.binary(max_size=40),
)
def test_altered_files_never_cost_it_its_calm(made, key, tmp_path, name, at, cut, put):
    """Any piece replaced by any bytes: one of its exit codes, and no traceback."""
    what, file = name
    content = (made / file).read_bytes()
    place = int(at * len(content))
    (tmp_path / "fuzzed").write_bytes(content[:place] + put + content[place + cut :])

    found = audit(what, tmp_path / "fuzzed", key=key)

    assert found.code in {0, 6}
    assert bool(found.fails) == (found.code == 6)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    what=st.sampled_from(sorted(FILES)), noise=st.binary(max_size=300), text=st.text(max_size=80)
)
def test_noise_never_costs_it_its_calm(key, tmp_path, what, noise, text):
    """Bytes of any kind, behind any of the beginnings that it knows."""
    for head in (b"", b"c2sp.org/tlog-proof@v1\n", b"envelock-anchor/1 ", b'{"checkpoint":'):
        (tmp_path / "noise").write_bytes(head + noise + text.encode("utf-8", "replace"))

        assert audit(what, tmp_path / "noise", key=key).code == 6
        assert audit("history", tmp_path / "noise", key=key).code == 6


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(field=st.sampled_from([*FIELDS, "topic", "marks", "zz"]), value=ANY, erases=st.booleans())
def test_any_value_in_a_signed_record_keeps_it_calm(made, key, tmp_path, field, value, erases):
    """Whatever stands where something else should."""
    erasure = {"typ": "subject.erased", "topic": "erasure", "marks": []} if erases else {}

    found = audit("export", exported(made, tmp_path, erasure | {field: value}), key=key)

    assert found.code in {0, 6}


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(where=st.sampled_from(["v", "record", "openings", "sub", "salt", "consistency"]), value=ANY)
def test_any_value_in_a_receipt_keeps_it_calm(made, key, tmp_path, where, value):
    """Whatever stands in the part that nobody signed."""

    def change(extra: dict) -> dict:
        if where not in {"sub", "salt"}:
            return extra | {where: value}
        pair = value if where == "sub" else [value, extra["openings"]["sub"][1]]
        return extra | {"openings": {"sub": pair}}

    found = audit("receipt", receipt_of(made, tmp_path, change), key=key)

    assert found.code in {0, 6}

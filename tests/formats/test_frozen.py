"""The golden vectors: our code makes of every input what was frozen, or refuses it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from vectors.inputs import inputs
from vectors.make import whole
from vectors.ours import OURS, VECTORS, made_of

from envelock_formats.canonical import parse
from envelock_formats.framing import from_b64
from envelock_formats.tdf.container import read_container
from envelock_formats.tdf.manifest import parse_manifest
from envelock_formats.tdf.segments import SegmentCipher, verify_root

FILES = sorted(VECTORS.glob("*.json"))


def cases() -> list[tuple[str, dict, dict | None]]:
    """Every case: its format, what goes in, what comes out."""
    return [
        pytest.param(path.stem, case["in"], case["out"], id=f"{path.stem}-{case['name']}")
        for path in FILES
        for case in json.loads(path.read_bytes())["cases"]
    ]


@pytest.mark.parametrize(("name", "given", "expected"), cases())
def test_our_code_makes_what_was_frozen(name: str, given: dict, expected: dict | None):
    """Every format, to the byte; a refused input stays refused."""
    assert made_of(name, given) == expected


def test_every_format_is_frozen():
    """No file without code, no code without a file."""
    assert {path.stem for path in FILES} == OURS.keys()


def test_the_same_story_gives_the_same_vectors():
    """What the KAS writes into a ledger has the same fields in the same form as ever."""
    made = {name: whole(name, given) for name, given in inputs().items()}

    assert {path.stem: path.read_bytes() for path in FILES} == made


def test_frozen_files_are_never_written_again(tmp_path: Path):
    """A vector that would come out otherwise is reported and kept."""
    shutil.copytree(VECTORS, tmp_path / "vectors")
    changed = tmp_path / "vectors" / "framing.json"
    changed.write_bytes(changed.read_bytes().replace(b"6263", b"6264"))
    before = changed.read_bytes()

    done = subprocess.run(
        [sys.executable, tmp_path / "vectors" / "make.py"], capture_output=True, check=False
    )

    assert done.returncode == 1, done.stderr
    assert changed.read_bytes() == before


def test_the_frozen_file_opens():
    """The sealed file of the vectors is read by the strict readers, and gives its plaintext."""
    [case] = json.loads((VECTORS / "sealed_file.json").read_bytes())["cases"]
    raw, dek = from_b64(case["out"]["file"]), bytes.fromhex(case["in"]["dek"])
    place = read_container(lambda offset, count: raw[offset : offset + count], len(raw))
    manifest = parse_manifest(place.manifest)
    verify_root(dek, manifest)
    plain, offset = b"", place.payload_offset
    for segment in manifest.segments:
        out = bytearray(segment.size)
        sealed = memoryview(raw)[offset : offset + segment.sealed_size]
        SegmentCipher(dek).open_into(segment, sealed, memoryview(out))
        plain, offset = plain + bytes(out), offset + segment.sealed_size

    assert plain == "".join(case["in"]["pieces"]).encode()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_vectors_are_strict_json(path: Path):
    """Others can read them with any parser and see the same."""
    assert parse(path.read_bytes())

"""No parser that meets bytes of somebody else raises, hangs or swells, whatever they are.

`ENVELOCK_FUZZ_SECONDS` is how long each parser is fuzzed: by default for a few thousand inputs, and
for 120 seconds in the long run.
Inputs that once failed lie in `tests/vectors/crashes` as `PARSER-...` and are tried every time.
"""

import os
import random
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from fuzz.targets import TARGETS
from hypothesis import given, settings
from hypothesis import strategies as st

FUZZER = Path(__file__).with_name("fuzzer.py")
CRASHES = Path(__file__).resolve().parents[1] / "vectors" / "crashes"
SECONDS_AN_INPUT = 3.0
BYTES_AN_INPUT = 64 << 20
LONG_SECONDS = 120


def kept() -> list[Path]:
    """Inputs that once failed."""
    return sorted(file for file in CRASHES.iterdir() if file.name.partition("-")[0] in TARGETS)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_target_accepts_its_seeds(name: str):
    """What a fuzzer starts from gets through the parser, or it would only see the door."""
    target = TARGETS[name]
    own = target.seeds()

    assert target.corpus()
    assert [seed for seed in own if not target.accepts(seed)] == []


@pytest.mark.parametrize("file", kept(), ids=lambda file: file.name[:40])
def test_what_once_failed_does_so_no_more(file: Path):
    """Each parser with the inputs that it stumbled over."""
    begun = time.monotonic()
    TARGETS[file.name.partition("-")[0]].accepts(file.read_bytes())

    assert time.monotonic() - begun < SECONDS_AN_INPUT


@pytest.mark.parametrize("name", sorted(TARGETS))
@settings(max_examples=40, deadline=None)
@given(chance=st.randoms(use_true_random=False), rest=st.binary(max_size=200))
def test_changed_inputs_are_refused_in_order(name: str, chance: random.Random, rest: bytes):
    """Bits flipped, parts cut, doubled and replaced: an error of the family, or a value."""
    target = TARGETS[name]
    data = changed(chance.choice(target.corpus()), chance, rest)
    begun = time.monotonic()
    target.accepts(data)

    assert time.monotonic() - begun < SECONDS_AN_INPUT


def changed(data: bytes, chance: random.Random, rest: bytes) -> bytes:
    """One to four small changes."""
    for _ in range(chance.randint(1, 4)):
        start, stop = sorted(chance.randint(0, len(data)) for _ in range(2))
        data = chance.choice(
            [
                data[:start] + rest + data[stop:],
                data[:stop] + data[start:],
                data[:start] + data[stop:],
                data[:start] + bytes([chance.randint(0, 255)]) + data[start + 1 :],
                data[:start] + chance.choice(WORDS) + data[stop:],
                data[:start] + chance.choice(WORDS) + data[start:],
            ]
        )
    return data


WORDS = [
    b"null", b"true", b"[]", b"{}", b"-1", b"1e400", b"9" * 400, b'""', b"\xff\xfe", b"\0" * 9,
    b"[" * 300, b'{"a":' * 300, b"\\ud800", b"PK\5\6", b"PK\1\2", b"\xff" * 8, b"=", b"\n\n",
]  # fmt: skip


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_no_input_takes_more_memory_than_it_should(name: str):
    """The costliest shapes at the size that the parser may be given."""
    target = TARGETS[name]
    for data in swollen(target.max_bytes):
        tracemalloc.start()
        try:
            target.accepts(data)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < BYTES_AN_INPUT


def swollen(size: int) -> list[bytes]:
    """Texts that many parsers make much of."""
    return [
        bytes(size),
        b"[" * size,
        b'{"a":' * (size // 5),
        b"[" + b"0," * (size // 2 - 2) + b"0]",
        b'{"keys":[' + b"{}," * (size // 3 - 6) + b"{}]}",
        b'["' + b"\\u0041" * (size // 6 - 2) + b'"]',
        b"9" * size,
        b"A" * size,
        b"\n" * size,
        b"." * size,
        b"a=" * (size // 2),
        b"[" + b"[]," * (size // 3 - 2) + b"[]]",
    ]


def fuzzed(seconds: str, folder: Path) -> tuple[str, list[str]]:
    """Fuzz every parser; what failed, and the inputs that were kept."""
    command = [sys.executable, str(FUZZER), seconds, str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    said = ended.stderr[-4000:] if ended.returncode else ""
    return ended.stdout + said, sorted(file.name for file in folder.iterdir())


def test_fuzzing_finds_nothing(tmp_path: Path):
    """Led by coverage, for a moment each."""
    pytest.importorskip("atheris", reason="no fuzzer for this platform")
    failed, inputs = fuzzed(os.environ.get("ENVELOCK_FUZZ_SECONDS", "0"), tmp_path)

    assert (failed, inputs) == ("", [])


@pytest.mark.slow
@pytest.mark.timeout(LONG_SECONDS * len(TARGETS))
def test_fuzzing_at_length_finds_nothing(tmp_path: Path):
    """Led by coverage, two minutes each."""
    pytest.importorskip("atheris", reason="no fuzzer for this platform")
    seconds = os.environ.get("ENVELOCK_FUZZ_SECONDS", str(LONG_SECONDS))
    failed, inputs = fuzzed(seconds, tmp_path)

    assert (failed, inputs) == ("", [])

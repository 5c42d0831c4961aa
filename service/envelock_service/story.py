"""The ten steps of `envelock demo`, each as somebody types it.

A step returns what it showed; what is not as expected raises `StoryError`. Steps look at exit
codes and printed output only, so they show what a person would see.
"""

import filecmp
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from envelock_service.softhsm import Token

DENIED, THE_FILE, NOT_VERIFIED = 3, 4, 6
DATASET = "clinic:records"
MEGABYTE = 1 << 20
STOP_SECONDS = 20.0
_COMMAND = (sys.executable, "-m", "envelock")


class StoryError(Exception):
    """A step went otherwise than it should."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a step showed: the line, and a detail beside it."""

    what: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    exit_code: int
    out: str
    error: str

    @property
    def value(self) -> dict[str, object]:
        """What it printed as JSON: its result, or what went wrong."""
        return _object(self.out if self.exit_code in {0, NOT_VERIFIED} else self.error)

    @property
    def last_words(self) -> str:
        """The last line of what it said."""
        return (self.error or self.out).strip().rpartition("\n")[2] or f"exit {self.exit_code}"


@dataclass(slots=True)
class Story:
    """One run, in one directory. Steps are told in order and build on each other."""

    directory: Path
    token: Token | None  # None: keys in the local custody
    megabytes: int
    ready: Mapping[str, object] = field(default_factory=dict)
    denied: str = ""  # the request id of the accountant's refusal
    record: int = -1  # and the record that it is in

    @property
    def plain(self) -> Path:
        """The file that is sealed."""
        return self.directory / "archive.bin"

    @property
    def sealed(self) -> Path:
        """The same, sealed."""
        return self.directory / "archive.bin.tdf"

    @property
    def steps(self) -> Sequence[Callable[[], Told]]:
        """The steps after the first, which `services` takes."""
        return (
            self.seal,
            self.doctor_opens,
            self.accountant_is_refused,
            self.rotate,
            self.old_file_opens,
            self.suspend,
            self.tampered_is_refused,
            self.ledger_verifies,
            self.flipped_bit_is_named,
        )

    @contextmanager
    def services(self) -> Iterator[Told]:
        """Step 1: run `envelock up` until the block ends."""
        with (self.directory / "up.log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 our own command
                [*_COMMAND, "up", "--json", "--listen", "127.0.0.1:0", *self._data],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
            )
        with process:
            try:
                self.ready = _object(
                    (process.stdout.readline() if process.stdout else b"").decode()
                )
                where = "SoftHSM" if self.token is not None else "the local custody"
                yield Told(f"services up, keys in {where}", str(self.ready.get("url")))
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()

    def seal(self) -> Told:
        """Seal the file for the clinic's records."""
        asks = ("--attr", "clearance=secret", "--dataset", "records")
        self._run("encrypt", self.plain, *asks, "--as", "doctor")
        return Told(f"{self.megabytes} MB sealed for {DATASET}", "asks clearance=secret")

    def doctor_opens(self) -> Told:
        """Open it as somebody whom the policy permits."""
        self._opens("doctor.bin")
        return Told("doctor opens it", "same bytes; receipt verified")

    def accountant_is_refused(self) -> Told:
        """Be refused, without being told why; the ledger knows."""
        done = self._run(*self._decrypt("accountant"), expected=DENIED)
        self.denied = str(done.value.get("request_id"))
        record = self._record(self.denied)
        reason = str(record.get("rsn"))
        if not reason or reason in done.error or record.get("typ") != "denied":
            raise StoryError("the reply names the reason, or the ledger does not")
        self.record = int(str(record.get("_i")))
        shown = reason.replace(": ", " ")
        detail = f"reply names no reason; record {self.record}: {shown}"
        return Told("accountant refused", detail)

    def rotate(self) -> Told:
        """Make a new version of the key that the file was sealed under."""
        before = self.sealed.stat()
        path = self._key_path()
        done = self._run("keys", "rotate", path, "--as", "operator")
        after = self.sealed.stat()
        if (before.st_mtime_ns, before.st_ino) != (after.st_mtime_ns, after.st_ino):
            raise StoryError("the sealed file was touched")
        states = [f"v{key['version']} {key['state']}" for key in _keys(done)]
        return Told("key rotated, no file rewritten", f"{path}: {', '.join(states)}")

    def old_file_opens(self) -> Told:
        """Open the file that was sealed under the old version."""
        self._opens("doctor-again.bin")
        return Told("the old file still opens", "under v1")

    def suspend(self) -> Told:
        """Suspend the dataset with all its keys: the doctor is refused from then on."""
        done = self._run("keys", "suspend", DATASET, "--below", "--as", "operator")
        refused = self._run(*self._decrypt("doctor"), expected=DENIED)
        record = self._record(str(refused.value.get("request_id")))
        if "suspended" not in str(record.get("rsn")):
            raise StoryError(f"the ledger says {record.get('rsn')}")
        detail = f"{len(_keys(done))} key versions, record {done.value.get('record')}"
        return Told(f"{DATASET} suspended: doctor refused", detail)

    def tampered_is_refused(self) -> Told:
        """Resume; then change one byte of a copy."""
        self._run("keys", "resume", DATASET, "--below", "--as", "operator")
        changed = self.directory / "tampered.tdf"
        shutil.copyfile(self.sealed, changed)
        _flip(changed, self.sealed.stat().st_size // 2)
        target = self.directory / "tampered"
        done = self._run("decrypt", changed, "--as", "doctor", expected=THE_FILE)
        if target.exists():
            raise StoryError("something came out of the changed file")
        return Told("resumed; one byte changed: refused", str(done.value.get("code")))

    def ledger_verifies(self) -> Told:
        """Verify every record of the ledger."""
        done = self._run("ledger", "verify")
        if done.value.get("ok") is not True:
            raise StoryError(done.last_words)
        return Told("ledger verifies", f"{done.value.get('size')} records, chain, tree, signature")

    def flipped_bit_is_named(self) -> Told:
        """Flip one bit in a copy of the ledger: verification names the record."""
        copy = self.directory / "copy.ledger"
        self._run("ledger", "snapshot", copy)
        place = copy.read_bytes().find(f'"req":"{self.denied}"'.encode())
        if place < 0:
            raise StoryError("the record is not in the copy")
        _flip(copy, place + len('"req":"r-'))
        done = self._run("ledger", "verify", copy, expected=NOT_VERIFIED)
        if done.value.get("index") != self.record:
            raise StoryError(f"verify names record {done.value.get('index')}")
        detail = str(done.value.get("error")).partition("; ")[0]
        return Told(f"bit flipped: verify names record {self.record}", detail)

    def _opens(self, name: str) -> None:
        out = self.directory / name
        self._run("decrypt", self.sealed, "-o", out, "--as", "doctor")
        if not filecmp.cmp(self.plain, out, shallow=False):
            raise StoryError("other bytes came out than went in")

    def _decrypt(self, name: str) -> tuple[object, ...]:
        return ("decrypt", self.sealed, "-o", self.directory / f"{name}.never", "--as", name)

    def _key_path(self) -> str:
        keys = self._run("inspect", self.sealed).value.get("keys")
        if not isinstance(keys, list) or not isinstance(keys[0], dict):
            raise StoryError("inspect names no key")
        return str(keys[0]["kid"]).rpartition(":")[0]

    def _record(self, request: str) -> dict[str, object]:
        records = self._run("ledger", "show", request).value.get("records")
        if not isinstance(records, list) or len(records) != 1 or not isinstance(records[0], dict):
            raise StoryError(f"request {request} is not in one record")
        return records[0]

    def _run(self, *arguments: object, expected: int = 0) -> Done:
        """Type a command, with `--json`; its exit code must be *expected*."""
        finished = subprocess.run(  # noqa: S603 our own command
            [*_COMMAND, *map(str, arguments), "--json", *self._data],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=self._environment,
            check=False,
        )
        done = Done(finished.returncode, finished.stdout.decode(), finished.stderr.decode())
        if done.exit_code != expected:
            raise StoryError(f"{arguments[0]}: exit {done.exit_code}: {done.last_words}")
        return done

    @property
    def _data(self) -> tuple[str, str]:
        return "--data", str(self.directory / "data")

    @property
    def _environment(self) -> dict[str, str]:
        """Ours, without what would choose another identity."""
        own = {name: text for name, text in os.environ.items() if not name.startswith("ENVELOCK_")}
        return own | dict(self.token.environment if self.token is not None else {})


def _object(text: str) -> dict[str, object]:
    try:
        value = json.loads(text.strip().rpartition("\n")[2])
    except ValueError as error:
        raise StoryError("a command did not print JSON; see up.log") from error
    if not isinstance(value, dict):
        raise StoryError("a command printed another JSON than an object")
    return value


def _keys(done: Done) -> list[dict[str, object]]:
    keys = done.value.get("keys")
    return [key for key in keys if isinstance(key, dict)] if isinstance(keys, list) else []


def _flip(path: Path, offset: int) -> None:
    """Flip the lowest bit of one byte."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))

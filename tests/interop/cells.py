"""The cells of the matrix: who writes, who reads, and how it ended."""

import filecmp
import json
import zipfile
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from interop.clients import NOT_RUN, OK, REFUSED, Installed, Outcome, Person
from interop.deployment import SECRET, Deployment

from envelock.doctor import repair

MIB = 1 << 20
SIZES = (0, 1, 2 * MIB - 1, 2 * MIB, 2 * MIB + 1, 5 * MIB)
CLASSIC = ("ec:secp256r1", "rsa:2048", "rsa:4096", "ec:secp384r1", "ec:secp521r1")
QUANTUM = (
    "mlkem:768",
    "mlkem:1024",
    "hpqt:xwing",
    "hpqt:secp256r1-mlkem768",
    "hpqt:secp384r1-mlkem1024",
)
ALGORITHMS = (*CLASSIC, *QUANTUM)
SHORT = (1, 5 * MIB)  # for kinds of keys that are one code with another
SECONDS = 120.0
EVERY = "every one"
MANIFEST, PAYLOAD = "0.manifest.json", "0.payload"


@dataclass(frozen=True, slots=True)
class Cell:
    """One thing tried, and how it ended."""

    table: str
    row: tuple[str, ...]
    column: str
    state: str
    words: str = ""


@dataclass(frozen=True)
class Bench:
    """The clients, a server, a person who may open, and a folder for files."""

    clients: Sequence[Installed]
    deployment: Deployment
    folder: Path

    @cached_property
    def doctor(self) -> Person:
        return self.deployment.person("doctor")

    def client(self, name: str) -> Installed:
        """The client of that name."""
        return next(client for client in self.clients if client.name == name)

    def plain(self, size: int) -> Path:
        """A file of *size* bytes, the same each time it is asked for."""
        path = self.folder / f"plain-{size}"
        if not path.exists():
            path.write_bytes((b"envelock" * (size // 8 + 1))[:size])
        return path

    def seal(
        self,
        writer: Installed,
        plain: Path,
        sealed: Path,
        *options: object,
        algorithm: str = "",
        seconds: float = SECONDS,
    ) -> Outcome:
        """Seal *plain* with *writer*."""
        given: list[object] = ["--in", plain, "--out", sealed, "--attr", SECRET, *options]
        if algorithm:
            given += ["--algorithm", algorithm]
            if writer.name == "envelock":
                given += ["--dataset", self.deployment.datasets[algorithm]]
        done = writer.run("encrypt", self.doctor, *given, seconds=seconds)
        if done.state == OK and not sealed.exists():
            return Outcome(REFUSED, "said nothing and wrote nothing")
        return done

    def unseal(
        self,
        reader: Installed,
        sealed: Path,
        plain: Path | None,
        *options: object,
        person: Person | None = None,
        seconds: float = SECONDS,
    ) -> Outcome:
        """Open *sealed* with *reader*; what comes out must be *plain*."""
        target = sealed.with_suffix(".out")
        target.unlink(missing_ok=True)
        options = ("--in", sealed, "--out", target, *options)
        done = reader.run("decrypt", person or self.doctor, *options, seconds=seconds)
        if done.state == OK and plain is not None and not filecmp.cmp(plain, target, shallow=False):
            done = Outcome(REFUSED, "other bytes came out than went in")
        target.unlink(missing_ok=True)
        return done


def sizes(bench: Bench) -> Iterator[Cell]:
    """Writer x reader x kind of key x size."""
    for algorithm in ALGORITHMS:
        wanted = SIZES if algorithm in {"rsa:2048", "ec:secp256r1"} else SHORT
        if reason := bench.deployment.refused.get(algorithm):
            row = (algorithm, EVERY, EVERY)
            yield Cell("sizes", row, EVERY, NOT_RUN, f"the server has no such key: {reason}")
            continue
        for writer in bench.clients:
            for size in wanted:
                yield from _written(bench, writer, algorithm, size)


def _written(bench: Bench, writer: Installed, algorithm: str, size: int) -> Iterator[Cell]:
    plain = bench.plain(size)
    sealed = bench.folder / "file.tdf"
    sealed.unlink(missing_ok=True)
    written = bench.seal(writer, plain, sealed, algorithm=algorithm)
    if written.state == NOT_RUN:
        yield Cell("sizes", (algorithm, writer.name, EVERY), _size(size), NOT_RUN, written.words)
        return
    for reader in bench.clients:
        row, column = (algorithm, writer.name, reader.name), _size(size)
        if not written.ok:
            yield Cell("sizes", row, column, written.state, f"sealing: {written.words}")
            continue
        options = ("--legacy",) if reader.name == "envelock" and _is_legacy(sealed) else ()
        read = bench.unseal(reader, sealed, plain, *options)
        yield Cell("sizes", row, column, read.state, read.words)


def _size(size: int) -> str:
    whole, rest = divmod(size + 1, MIB)
    if size < MIB:
        return str(size)
    offset = {0: " - 1", 1: "", 2: " + 1"}[rest]
    return f"{whole} MiB{offset}"


def _is_legacy(sealed: Path) -> bool:
    with zipfile.ZipFile(sealed) as archive:
        names = archive.namelist()
        return MANIFEST in names and "schemaVersion" not in json.loads(archive.read(MANIFEST))


def sessions(bench: Bench) -> Iterator[Cell]:
    """What answers are sealed to, and how a token is shown, by client."""
    plain, sealed = bench.plain(1), bench.folder / "session.tdf"
    bench.seal(bench.client("envelock"), plain, sealed)
    for reader in bench.clients:
        for session in ("rsa:2048", "ec:secp256r1", "ec:secp384r1", "ec:secp521r1"):
            read = bench.unseal(reader, sealed, plain, "--session", session)
            yield Cell("sessions", (reader.name,), f"answer to {session}", read.state, read.words)
        for dpop in ("off", "on", "RS256", "ES384", "ES512"):
            if reader.name != "go" and dpop not in {"off", "on"}:
                continue
            read = bench.unseal(reader, sealed, plain, "--dpop", dpop)
            yield Cell("sessions", (reader.name,), f"DPoP {dpop}", read.state, read.words)


def extras(bench: Bench) -> Iterator[Cell]:
    """Assertions, metadata, former formats, keys by attribute, and many files in a request."""
    first, second = bench.client("envelock"), bench.client("go")
    plain, sealed = bench.plain(5 * MIB), bench.folder / "extra.tdf"
    for writer, reader in ((first, second), (second, first)):
        row = (f"{writer.name} to {reader.name}",)
        bench.seal(writer, plain, sealed, "--metadata", "ward 7")
        read = bench.unseal(reader, sealed, plain, "--metadata", "ward 7")
        yield Cell("extras", row, "encrypted metadata", read.state, read.words)
        stated = ("--assertion",) if writer is second else ("--assertions", ASSERTIONS)
        made = bench.seal(writer, plain, sealed, *stated)
        read = bench.unseal(reader, sealed, plain) if made.ok else made
        yield Cell("extras", row, "assertions, verified", read.state, read.words)
    row = (f"{second.name} to {first.name}",)
    made = bench.seal(second, plain, sealed, "--target", "4.2.2")
    read = bench.unseal(first, sealed, plain, "--legacy") if made.ok else made
    yield Cell("extras", row, "written as 4.2.2", read.state, read.words)
    row = (f"{second.name} to {second.name}",)
    made = bench.seal(second, plain, sealed, "--auto")
    read = bench.unseal(second, sealed, plain) if made.ok else made
    yield Cell("extras", row, "key chosen by attributes, or the base key", read.state, read.words)
    well = second.run("healthy", bench.doctor)
    yield Cell("extras", (second.name,), "health", well.state, well.words)
    yield _repaired(bench)
    yield from _bulk(bench, second)


def _repaired(bench: Bench) -> Cell:
    """A file whose manifest has the specification's name, for a reader that does not know it."""
    writer, reader = bench.client("opentdf-rs"), bench.client("otdf-python")
    plain, sealed, mended = bench.plain(5 * MIB), bench.folder / "rs.tdf", bench.folder / "py.tdf"
    read = bench.seal(writer, plain, sealed)
    if read.ok:
        repair(sealed, mended, force=True)
        read = bench.unseal(reader, mended, plain)
    row = (f"{writer.name} to {reader.name}",)
    return Cell("extras", row, "repaired by `envelock doctor`", read.state, read.words)


ASSERTIONS = json.dumps(
    [
        {
            "id": "marking",
            "type": "handling",
            "scope": "tdo",
            "appliesToState": "encrypted",
            "statement": {"format": "string", "schema": "plain", "value": "for the ward only"},
        }
    ]
)


def _bulk(bench: Bench, client: Installed) -> Iterator[Cell]:
    """Many files in one request; and with one among them that is denied."""
    plain, many = bench.plain(1), 50
    sealed = [bench.folder / f"bulk-{number}.tdf" for number in range(many)]
    for path in sealed:
        bench.seal(client, plain, path, algorithm="ec:secp256r1")
    row = (f"{client.name} to {client.name}",)
    done = _opened(bench, client, sealed, bench.doctor)
    yield Cell("extras", row, f"bulk: {many} files in a request", done.state, done.words)
    done = _opened(bench, client, [sealed[0]] * many, bench.doctor)
    yield Cell("extras", row, f"bulk: {many} times the same file", done.state, done.words)
    bad = damaged(sealed[7], bench.folder / "bulk-bad.tdf", other_policy)
    done = _opened(bench, client, [*sealed[:7], bad, *sealed[8:]], bench.doctor)
    right = done.state == REFUSED and len(opened(bench.folder, plain)) == many - 1
    words = f"{many - 1} opened; {done.words}" if right else done.words
    column = f"bulk: one of {many} is damaged"
    yield Cell("extras", row, column, OK if right else REFUSED, words)


def _opened(bench: Bench, client: Installed, files: Sequence[Path], person: Person) -> Outcome:
    targets = [bench.folder / f"bulk-{number}.open" for number in range(len(files))]
    for target in targets:
        target.unlink(missing_ok=True)
    given = (",".join(map(str, files)), ",".join(map(str, targets)))
    return client.run("bulk-decrypt", person, "--in", given[0], "--out", given[1])


def opened(folder: Path, plain: Path) -> list[Path]:
    """The targets of a bulk request that hold *plain*."""
    found = sorted(folder.glob("bulk-*.open"))
    return [path for path in found if filecmp.cmp(plain, path, shallow=False)]


def refusals(bench: Bench) -> Iterator[Cell]:
    """What each client says when it is denied, and of files with one thing wrong."""
    plain, sealed = bench.plain(5 * MIB), bench.folder / "whole.tdf"
    writer = bench.client("go")
    made = bench.seal(writer, plain, sealed, algorithm="rsa:2048")
    accountant = bench.deployment.person("accountant")
    for reader in bench.clients:
        if not made.ok:
            yield Cell("refusals", ("every",), reader.name, NOT_RUN, made.words)
            continue
        done = bench.unseal(reader, sealed, None, person=accountant)
        yield Cell("refusals", ("denied: not entitled",), reader.name, done.state, done.words)
        for name, fault in FAULTS.items():
            bad = damaged(sealed, bench.folder / "bad.tdf", fault)
            done = bench.unseal(reader, bad, None)
            yield Cell("refusals", (name,), reader.name, done.state, done.words)


Fault = Callable[[dict, bytearray], None]


def damaged(sealed: Path, target: Path, fault: Fault) -> Path:
    """A copy of *sealed* with one *fault* in its manifest or payload."""
    with zipfile.ZipFile(sealed) as archive:
        manifest, payload = json.loads(archive.read(MANIFEST)), bytearray(archive.read(PAYLOAD))
    fault(manifest, payload)
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(PAYLOAD, bytes(payload))
        archive.writestr(MANIFEST, json.dumps(manifest))
    return target


def other_policy(manifest: dict, _payload: bytearray) -> None:
    """A policy that asks less, under the former binding."""
    information = manifest["encryptionInformation"]
    policy = json.loads(b64decode(information["policy"]))
    policy["body"]["dataAttributes"][0]["attribute"] = SECRET.replace("secret", "public")
    information["policy"] = b64encode(json.dumps(policy).encode()).decode()


def _flipped(text: str) -> str:
    raw = bytearray(b64decode(text))
    raw[-1] ^= 1
    return b64encode(raw).decode()


def _wrapped_key(manifest: dict, _payload: bytearray) -> None:
    access = manifest["encryptionInformation"]["keyAccess"][0]
    access["wrappedKey"] = _flipped(access["wrappedKey"])


def _unknown_key(manifest: dict, _payload: bytearray) -> None:
    manifest["encryptionInformation"]["keyAccess"][0]["kid"] = "nobody:v1"


def _root_signature(manifest: dict, _payload: bytearray) -> None:
    signature = manifest["encryptionInformation"]["integrityInformation"]["rootSignature"]
    signature["sig"] = _flipped(signature["sig"])


def _segment_hash(manifest: dict, _payload: bytearray) -> None:
    segment = manifest["encryptionInformation"]["integrityInformation"]["segments"][0]
    segment["hash"] = _flipped(segment["hash"])


def _swapped(manifest: dict, payload: bytearray) -> None:
    integrity = manifest["encryptionInformation"]["integrityInformation"]
    size = integrity["segments"][0]["encryptedSegmentSize"]
    payload[: 2 * size] = payload[size : 2 * size] + payload[:size]
    integrity["segments"][:2] = integrity["segments"][1::-1]


def _truncated(manifest: dict, payload: bytearray) -> None:
    last = manifest["encryptionInformation"]["integrityInformation"]["segments"].pop()
    del payload[-last["encryptedSegmentSize"] :]


def _content(_manifest: dict, payload: bytearray) -> None:
    payload[100] ^= 1


FAULTS: dict[str, Fault] = {
    "another policy": other_policy,
    "wrapped key altered": _wrapped_key,
    "a key that does not exist": _unknown_key,
    "root signature altered": _root_signature,
    "segment hash altered": _segment_hash,
    "two segments swapped": _swapped,
    "last segment cut off": _truncated,
    "one byte of content altered": _content,
}

"""What do stock clients get: rewraps a second, files in bulk, and a 256 MB file?

The OpenTDF Go SDK (0.36, `tests/interop/go`) opens files through a whole deployment of ours: two
KAS workers, ledger, PDP, all on the same two cores as the client. Each rewrap is a verified token
and request token, a decision made and signed for a client that brings none, an unwrap, a policy
binding, a durable record. The client makes a P-256 key for each answer; in bulk it has every key
sealed to one RSA key, has no option for another kind, and pays an RSA decryption for each, so there
it is the limit. Its processor time is told beside the server's. Files have one attribute: an empty
policy is denied. The figures of the platform were taken with a generator of signed requests, not
with its SDK.

    python benchmarks/opentdf.py [rewraps] [bulk] [signed] [file] [--rounds 3] [--seconds 4]
        [--dpop off|on] [--mappings 0] [--requests 100] [--connections 16]

`signed` is the server's own rate in bulk: what the SDK sends (protobuf, 100 files that it wrote,
one RSA key for all answers), signed beforehand and sent by `wrk` as in `release.py`; beside it the
same with a P-256 key for the answers. `--mappings N` adds N subject mappings to the policies.
`file` seals and opens 256 MB with our SDK, the Go SDK and otdf-python, in turn, each in a process
of its own, beside a plain copy.
"""

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import sys
import tempfile
import time
import zipfile
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from release import Signed, cpu_seconds, deployment, ours, sent

import envelock_policies
from envelock.testing import Server

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from interop import clients, wire
from interop.deployment import SECRET

BULK = 100
CALLERS = (1, 16, 64)
WRAPS = ("ec:secp256r1", "rsa:2048")
MEGABYTES = 256
MEMORY = Path("/dev/shm")  # noqa: S108 a temporary folder is made in it
# The platform itself on these two cores, one attribute, no ledger and no signed decision:
# rewraps a second by callers, then keys a second in requests of 100.
PLATFORM = {
    "ec:secp256r1": ({1: 130, 16: 361, 64: 323}, 2355),
    "rsa:2048": ({1: 118, 16: 254, 64: 309}, 796),
}
# Members of a key access object that the SDK sends, and its header beside them.
ASKED = {"type", "url", "protocol", "kid", "sid", "wrappedKey", "policyBinding"}
ASKED |= {"ephemeralPublicKey"}
CONTEXT = b64encode(b'{"obligations":{"fulfillableFQNs":null}}').decode()


def main() -> None:
    """Run what is asked, all of it without a word."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="rewraps|bulk|signed|file", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--dpop", choices=["off", "on"], default="off")
    parser.add_argument("--mappings", type=int, default=0, help="subject mappings to add")
    parser.add_argument("--requests", type=int, default=100, help="in a round of `signed`")
    parser.add_argument("--connections", type=int, default=16, help="of `signed`")
    asked = parser.parse_args()
    parts = asked.parts or ["rewraps", "bulk", "signed", "file"]
    driver = clients.go()
    if driver.missing:
        sys.exit(f"the Go SDK is missing: {driver.missing}")
    with bundle(asked.mappings) as policies:
        for wrap in WRAPS if {"rewraps", "bulk", "signed"} & set(parts) else ():
            with deployment(wrap, "local", 2, policies) as running:
                if {"rewraps", "bulk"} & set(parts):
                    measure(running, driver, wrap, parts, asked)
                if "signed" in parts:
                    generated(running, driver, wrap, asked)
        if "file" in parts:
            with deployment(WRAPS[1], "local", 2, policies) as running:
                large(running, driver, asked.rounds)


@contextmanager
def bundle(more: int) -> Iterator[Path]:
    """The shipped policies, with *more* mappings for people who do not exist."""
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "clinic"
        shutil.copytree(envelock_policies.path("clinic"), copied)
        file = copied / "mappings.json"
        mappings = json.loads(file.read_text())
        mappings += [
            {
                "claim": "$.departments",
                "operator": "in",
                "values": [f"ward-{number}"],
                "grants": "department=cardiology",
            }
            for number in range(more)
        ]
        file.write_text(json.dumps(mappings))
        yield copied


def measure(
    running: Server,
    driver: clients.Installed,
    wrap: str,
    parts: Sequence[str],
    asked: argparse.Namespace,
) -> None:
    """Rounds of each number of callers, in turn, so that all meet the same hour."""
    wanted = [(callers, 1) for callers in CALLERS] if "rewraps" in parts else []
    wanted += [(1, BULK), (4, BULK)] if "bulk" in parts else []
    found: dict[tuple[int, int], list[dict[str, float]]] = {key: [] for key in wanted}
    for _ in range(asked.rounds):
        for callers, count in wanted:
            told = rounded(running, driver, wrap, callers, count, asked)
            found[callers, count].append(told)
    print(f"\n{wrap}, DPoP {asked.dpop}, {asked.mappings} mappings more, load {load()}")
    for (callers, count), rounds in found.items():
        platform = PLATFORM[wrap][1] if count > 1 else PLATFORM[wrap][0][callers]
        rates = [one["per_second"] for one in rounds]
        name = f"{BULK} a request, {callers} callers" if count > 1 else f"{callers} callers"
        print(
            f"{name:26} {spread(rates)}/s, p99 {middle(rounds, 'p99') * 1000:.0f} ms;"
            f" processor ms a key: server {middle(rounds, 'server'):.2f},"
            f" client {middle(rounds, 'client'):.2f}; the platform {platform}/s,"
            f" {statistics.median(rates) / platform:.1f} times"
        )


def rounded(
    running: Server,
    driver: clients.Installed,
    wrap: str,
    callers: int,
    count: int,
    asked: argparse.Namespace,
) -> dict[str, float]:
    """One round: what the driver tells, and processor milliseconds for each key."""
    processes = ours(running)
    before = sum(cpu_seconds(pid) for pid in processes)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = driver.run(
        "bench",
        person(running),
        *("--attr", SECRET, "--algorithm", wrap, "--session", "ec:secp256r1"),
        *("--concurrent", callers, "--count", count),
        *("--seconds", asked.seconds, "--dpop", asked.dpop),
    )
    if not done.ok:
        sys.exit(f"{driver.name}: {done.words}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    told: dict[str, float] = json.loads(done.said)
    keys = told["requests"] * count
    spent = sum(cpu_seconds(pid) for pid in processes) - before
    own = after.ru_utime - usage.ru_utime + after.ru_stime - usage.ru_stime
    return told | {"server": spent / keys * 1000, "client": own / keys * 1000}


def generated(
    running: Server, driver: clients.Installed, wrap: str, asked: argparse.Namespace
) -> None:
    """Rounds of signed requests for many files, by the kind of key that answers are sealed to."""
    entries = written(running, driver, wrap)
    keys: dict[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = {
        "rsa:2048": rsa.generate_private_key(65537, 2048),
        "ec:secp256r1": ec.generate_private_key(ec.SECP256R1()),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in keys}
    for number in range(asked.rounds + 1):  # the first one warms up
        for name, key in keys.items():
            told = generation(running, entries, wire.pem(key), asked)
            if number:
                found[name].append(told)
    print(f"\n{wrap}, DPoP {asked.dpop}, signed beforehand, {BULK} a request, load {load()}")
    for name, rounds in found.items():
        rates = [one["per_second"] for one in rounds]
        print(
            f"{'answers to ' + name:26} {spread(rates)} keys/s, p99 {middle(rounds, 'p99'):.0f} ms;"
            f" processor ms a key: server {middle(rounds, 'server'):.2f},"
            f" wrk {middle(rounds, 'wrk'):.2f}; the platform {PLATFORM[wrap][1]}/s,"
            f" {statistics.median(rates) / PLATFORM[wrap][1]:.1f} times"
        )


def written(running: Server, driver: clients.Installed, wrap: str) -> list[dict[str, object]]:
    """Files that the SDK wrote, as it asks for them in one request."""
    entries: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        plain, sealed = Path(folder) / "plain", Path(folder) / "sealed"
        plain.write_bytes(b"bench")
        options = ("--in", plain, "--out", sealed, "--attr", SECRET, "--algorithm", wrap)
        done = driver.run("encrypt", person(running), *options, "--count", BULK)
        if not done.ok:
            sys.exit(f"{driver.name}: {done.words}")
        for number in range(BULK):
            with zipfile.ZipFile(f"{sealed}.{number}") as archive:
                found = json.loads(archive.read("0.manifest.json"))["encryptionInformation"]
            [access] = found["keyAccess"]
            key = {name: value for name, value in access.items() if name in ASKED}
            policy = {"id": f"policy-{number}", "body": found["policy"]}
            objects = [{"keyAccessObjectId": "kao-0", "keyAccessObject": key}]
            entries.append({"keyAccessObjects": objects, "policy": policy})
    return entries


def generation(
    running: Server, entries: list[dict[str, object]], pem: str, asked: argparse.Namespace
) -> dict[str, float]:
    """One round: rate, latency, and processor milliseconds for each key.

    Each request has an order of its own: the same again within a second would be a repetition,
    which is answered without a new record.
    """
    caller = wire.Caller(person(running), "ES256")
    bound, url = asked.dpop == "on", running.url + wire.REWRAP
    token = caller.bound() if bound else caller.bearer()
    headers = {
        "Authorization": f"{'DPoP' if bound else 'Bearer'} {token}",
        "Content-Type": wire.PROTO,
        "Connect-Protocol-Version": "1",
        "X-Rewrap-Additional-Context": CONTEXT,
    }
    requests = []
    for _ in range(asked.requests):
        random.shuffle(entries)
        body = {"clientPublicKey": pem, "requests": entries}
        proof = caller.proof(url, token) if bound else ""
        requests.append((proof, wire.text_field(1, caller.request_token(body))))
    processes = ours(running)
    before = sum(cpu_seconds(pid) for pid in processes)
    told, generator = sent(running.url, Signed(headers, requests), asked.connections)
    spent = sum(cpu_seconds(pid) for pid in processes) - before
    keys = told["answered"] * BULK
    return {
        "per_second": keys / told["seconds"],
        "p99": told["p99_ms"],
        "server": spent / keys * 1000,
        "wrk": generator / keys * 1000,
    }


def person(running: Server) -> clients.Person:
    """Who may open."""
    secret = (running.data / "secrets" / "client-doctor.secret").read_text().strip()
    return clients.Person(running.url, running.issuer, "doctor", secret)


def large(running: Server, go: clients.Installed, rounds: int) -> None:
    """Seal and open one large file with each client in turn."""
    contenders = [clients.ours(), go, clients.python()]
    room = MEMORY if MEMORY.is_dir() else None
    times: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(dir=room) as folder:
        plain, target = Path(folder) / "plain", Path(folder) / "open"
        plain.write_bytes(os.urandom(MEGABYTES << 20))
        for _ in range(rounds):
            start = time.perf_counter()
            shutil.copyfile(plain, target)
            copied = time.perf_counter() - start
            times.setdefault("plain copy", []).append({"seal": copied, "open": copied})
            for client in contenders:
                told = timed(running, client, plain, target)
                if told is not None:
                    times.setdefault(client.name, []).append(told)
    print(f"\n{MEGABYTES} MB in {room or 'a file system'}, seconds, load {load()}")
    for name, found in times.items():
        seal, opening = ([one[part] for one in found] for part in ("seal", "open"))
        print(f"{name:14} seal {spread(seal, 2)}, open {spread(opening, 2)}")


def timed(
    running: Server, client: clients.Installed, plain: Path, target: Path
) -> dict[str, float] | None:
    """What one client tells; None when it is not here."""
    more = ("--algorithm", "rsa:2048") if client.name == "go" else ()
    options = ("--in", plain, "--out", target, "--attr", SECRET, *more)
    done = client.run("time", person(running), *options)
    target.unlink(missing_ok=True)
    if not done.ok:
        print(f"{client.name}: {done.state}: {done.words}")
        return None
    found: dict[str, float] = json.loads(done.said)
    return found


def middle(rounds: Sequence[dict[str, float]], name: str) -> float:
    """The median of what the rounds tell."""
    return statistics.median(one[name] for one in rounds)


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Median, then lowest and highest."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):,.{digits}f} [{low:,.{digits}f}-{high:,.{digits}f}]"


def load() -> str:
    """What else ran: the load average of a minute, ours included."""
    return f"{os.getloadavg()[0]:.1f}"


if __name__ == "__main__":
    main()

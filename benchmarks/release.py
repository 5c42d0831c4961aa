"""How many keys does a KAS release in a second?

A whole deployment (ledger, PDP, two KAS workers, development issuer) answers requests that were
signed beforehand: each has its own client key, request token and proof of possession, so every
answer is a verified and signed decision, an unwrap, a policy binding, a durable record with its
receipt. `wrk` sends them (Debian package `wrk`), on the same cores; its share of the processor is
reported beside that of each of our processes.

    python benchmarks/release.py [--wrap ec:secp256r1|rsa:2048] [--custody local|softhsm]
        [--decision asked|presented] [--objects 1] [--connections 64] [--requests 3000] [--rounds 5]
"""

import argparse
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import urllib3
from cryptography.hazmat.primitives.asymmetric import ec

from envelock import Client
from envelock.reader import SealedFile
from envelock.testing import Server, server
from envelock_formats.framing import b64url
from envelock_formats.request import key_sha256, spki_from_pem
from envelock_formats.tdf.keyaccess import keys_sha256, object_id
from envelock_formats.wire import (
    KeyAccessEntry,
    ObjectEntry,
    PolicyEntry,
    RewrapBody,
    write_request_token,
)
from envelock_formats.wrap import public_pem
from envelock_service.softhsm import make_token

PATH = "/kas.AccessService/Rewrap"
KAS_ID = "envelock-kas"
EVALUATIONS_A_CALL = 50  # the PDP bounds what one call may ask
SETTINGS = """\
[deployment]
environment = "development"
[kas]
url = "http://127.0.0.1:8080"
algorithms = ["{wrap}"]
[kas.guard]
subject_per_second = 1e6
subject_burst = 1000000
paths_per_second = 1e6
paths_burst = 100000
[pdp]
subject_per_second = 1e6
subject_burst = 1e6
{custody}
"""


@dataclass(frozen=True, slots=True)
class Signed:
    """Requests that are ready to be sent, each with its DPoP proof, or an empty one for none."""

    headers: dict[str, str]
    requests: list[tuple[str, bytes]]


def main() -> None:
    """Run the rounds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wrap", default="ec:secp256r1")
    parser.add_argument("--custody", choices=["local", "softhsm"], default="local")
    parser.add_argument("--decision", choices=["asked", "presented"], default="asked")
    parser.add_argument("--objects", type=int, default=1, help="objects in a request")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 2)
    asked = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: apt-get install wrk")
    with deployment(asked.wrap, asked.custody, asked.workers) as running:
        measure(running, asked)


@contextmanager
def deployment(
    wrap: str, custody: str, workers: int, policies: Path | None = None
) -> Iterator[Server]:
    """Everything that answers, with keys of the kind *wrap* in *custody*."""
    with tempfile.TemporaryDirectory() as folder:
        section, environment = '[custody]\nkind = "local"', {}
        if custody == "softhsm":
            token = make_token(Path(folder), os.urandom)
            if token is None:
                sys.exit("SoftHSM is missing: apt-get install softhsm2")
            section = token.settings.replace('pin_file = "', f'pin_file = "{folder}/')
            environment = dict(token.environment)
        settings = SETTINGS.format(wrap=wrap, custody=section)
        with server(
            policies, workers=workers, settings=settings, environment=environment
        ) as running:
            yield running


def measure(running: Server, asked: argparse.Namespace) -> None:
    """Seal, send in rounds, print."""
    client = running.client("doctor")
    sealed = [client.encrypt(b"x", attrs="clearance=secret") for _ in range(asked.objects)]
    files = [SealedFile.open(one) for one in sealed]
    processes = ours(running)
    rates, p50s, p99s, shares = [], [], [], []
    for number in range(asked.rounds + 1):  # the first one warms up
        decided = asked.decision == "presented"
        signed = prepared(running, client, files, asked.requests, decided=decided)
        before = {pid: cpu_seconds(pid) for pid in processes}
        told, generator = sent(running.url, signed, asked.connections)
        if number == 0:
            continue
        share = dict.fromkeys(processes.values(), 0.0)
        for pid, name in processes.items():
            share[name] += (cpu_seconds(pid) - before[pid]) / told["answered"]
        shares.append(share | {"wrk": generator / told["answered"]})
        rates.append(told["answered"] * asked.objects / told["seconds"])
        p50s.append(told["p50_ms"])
        p99s.append(told["p99_ms"])
    print(f"cores {os.cpu_count()}, {asked}")
    print(f"keys/s   median {statistics.median(rates):,.0f}  [{min(rates):,.0f}-{max(rates):,.0f}]")
    print(
        f"latency  p50 {statistics.median(p50s):.1f} ms, p99 {statistics.median(p99s):.1f} ms"
        f" [{min(p99s):.1f}-{max(p99s):.1f}]"
    )
    for name in shares[0]:
        spent = statistics.median(share[name] for share in shares)
        print(f"cpu      {name:16} {1e6 * spent:8,.0f} us a request")
    for pid, name in processes.items():
        print(f"memory   {name:16} {resident(pid):8.1f} MB")


def prepared(
    running: Server, client: Client, files: list[SealedFile], count: int, *, decided: bool
) -> Signed:
    """Distinct requests of our own client."""
    session = client.session
    configuration = client.run(session.configuration())
    token = client.run(session.credentials.token(configuration.idp.token_endpoint))
    entries = tuple(
        ObjectEntry(
            tuple(KeyAccessEntry(f"kao-{n}", key) for n, key in enumerate(found.key_access)),
            PolicyEntry(f"policy-{number}", found.policy_text),
        )
        for number, found in enumerate(files)
    )
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(count)]
    pems = [public_pem(key.public_key()) for key in keys]
    decisions: list[str | None] = [None] * count
    if decided:
        decisions = []
        step = max(1, EVALUATIONS_A_CALL // len(files))
        for start in range(0, count, step):
            some = pems[start : start + step]
            decisions += decisions_for(running, client, files, some)
    shown = session.credentials.headers(token, "POST", running.url + PATH)["Authorization"]
    requests = []
    for pem, decision in zip(pems, decisions, strict=True):
        body = RewrapBody(pem, entries, decision=decision)
        text = write_request_token(body, session.credentials.key, now=int(time.time()))
        proof = session.credentials.headers(token, "POST", running.url + PATH)["DPoP"]
        requests.append((proof, json.dumps({"signedRequestToken": text}).encode()))
    return Signed({"Authorization": shown, "Content-Type": "application/json"}, requests)


def decisions_for(
    running: Server, client: Client, files: list[SealedFile], pems: list[str]
) -> list[str]:
    """A decision for each client key, asked of the PDP as its callers ask."""
    evaluations = [
        {
            "subject": {"type": "user", "id": "doctor"},
            "action": {"name": "open"},
            "resource": {
                "type": "tdf",
                "id": object_id(found.key_access),
                "properties": {
                    "policy": found.policy_text,
                    "keys_sha256": b64url(keys_sha256(found.key_access)),
                },
            },
            "context": {
                "request": number,
                "kas_id": KAS_ID,
                "key_sha256": b64url(key_sha256(spki_from_pem(pem))),
            },
        }
        for number, pem in enumerate(pems)
        for found in files
    ]
    url = f"{running.pdp}/access/v1/evaluations"
    session = client.session
    configuration = client.run(session.configuration())
    token = client.run(session.credentials.token(configuration.idp.token_endpoint))
    headers = session.credentials.headers(token, "POST", url) | {"Content-Type": "application/json"}
    content = json.dumps({"evaluations": evaluations}).encode()
    answer = urllib3.request("POST", url, body=content, headers=headers)
    if answer.status != HTTPStatus.OK:
        sys.exit(f"PDP: {answer.status} {answer.data.decode()}")
    decisions: list[str] = answer.json()["context"]["decisions"]
    return decisions


def sent(url: str, signed: Signed, connections: int) -> tuple[dict, float]:
    """Send all with wrk; returns what it tells, and the processor seconds that it took itself."""
    with tempfile.NamedTemporaryFile(suffix=".requests") as file:
        head = [f"{name}: {value}\n" for name, value in signed.headers.items()]
        file.write("".join([*head, "\n"]).encode())
        for proof, body in signed.requests:
            file.write(f"{proof}\t{len(body)}\n".encode() + body + b"\n")
        file.flush()
        script = Path(__file__).with_suffix(".lua")
        command = ["wrk", "-t1", f"-c{connections}", "-d600s", "--timeout", "30s"]
        command += ["-s", str(script), url + PATH, "--", file.name]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with subprocess.Popen(  # noqa: S603 wrk, and our own words
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            process.stderr.readline()  # "all sent"
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = json.loads(said.splitlines()[-1])
    if told["errors"] or told["permitted"] != told["answered"]:
        sys.exit(f"not all were released: {told}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return told, spent


def ours(running: Server) -> dict[int, str]:
    """Our processes, by process id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_text().split("\0")
            except OSError:
                continue
            for name in ("envelock_kas", "envelock_pdp", "envelock_ledger"):
                if name in words and str(running.data) in words:
                    found[int(entry.name)] = name
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """Megabytes of memory that a process holds now."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()

"""How many keys does a KAS release in a second?

A whole deployment (ledger, PDP, two KAS workers, development issuer) answers requests that were
signed beforehand: each has its own ephemeral key, request token and proof of possession, so every
answer is a decision asked of the PDP over its socket and signed, an unwrap, a policy binding, a
durable record with its receipt. The generator only writes and reads bytes, on the same cores.

    python benchmarks/release.py [--requests 3000] [--rounds 5] [--connections 64]
"""

import argparse
import asyncio
import json
import os
import statistics
import time
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import ec

from envelock import Client
from envelock.reader import SealedFile
from envelock.testing import Server, server
from envelock_formats.wire import (
    KeyAccessEntry,
    ObjectEntry,
    PolicyEntry,
    RewrapBody,
    write_request_token,
)
from envelock_formats.wrap import public_pem

PATH = "/kas.AccessService/Rewrap"


def main() -> None:
    """Run the rounds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--objects", type=int, default=1, help="objects in a request")
    asked = parser.parse_args()
    with server(workers=os.cpu_count() or 2) as running:
        client = running.client("doctor")
        sealed = [client.encrypt(b"x", attrs="clearance=secret") for _ in range(asked.objects)]
        rates, p50s, p99s = [], [], []
        for _ in range(asked.rounds):
            requests = prepared(running, client, sealed, asked.requests)
            taken, latencies = asyncio.run(sent(running.url, requests, asked.connections))
            latencies.sort()
            rates.append(asked.requests * asked.objects / taken)
            p50s.append(1000 * latencies[len(latencies) // 2])
            p99s.append(1000 * latencies[len(latencies) * 99 // 100])
        print(
            f"cores {os.cpu_count()}, {asked.connections} connections, {asked.objects} per request"
        )
        print(
            f"keys/s  median {statistics.median(rates):,.0f}  [{min(rates):,.0f}-{max(rates):,.0f}]"
        )
        p50, p99 = statistics.median(p50s), statistics.median(p99s)
        print(f"latency, median of rounds: p50 {p50:.1f} ms, p99 {p99:.1f} ms")


def prepared(running: Server, client: Client, sealed: list[bytes], count: int) -> list[bytes]:
    """Distinct requests, signed, as bytes on the wire."""
    session = client.session
    configuration = client.run(session.configuration())
    token = client.run(session.credentials.token(configuration.idp.token_endpoint))
    files = [SealedFile.open(one) for one in sealed]
    entries = tuple(
        ObjectEntry(
            tuple(KeyAccessEntry(f"kao-{n}", key) for n, key in enumerate(found.key_access)),
            PolicyEntry(f"policy-{number}", found.policy_text),
        )
        for number, found in enumerate(files)
    )
    host = urlsplit(running.url).netloc
    requests = []
    for _ in range(count):
        key = ec.generate_private_key(ec.SECP256R1())
        body = RewrapBody(public_pem(key.public_key()), entries)
        text = write_request_token(body, session.credentials.key, now=int(time.time()))
        content = json.dumps({"signedRequestToken": text}).encode()
        headers = session.credentials.headers(token, "POST", f"{running.url}{PATH}")
        lines = [f"POST {PATH} HTTP/1.1", f"Host: {host}", "Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Content-Length: {len(content)}", "", ""]
        requests.append("\r\n".join(lines).encode() + content)
    return requests


async def sent(url: str, requests: list[bytes], connections: int) -> tuple[float, list[float]]:
    """Send all; returns the seconds it took, and each request's."""
    parts = urlsplit(url)
    waiting = iter(requests)
    latencies: list[float] = []

    async def worker() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        for request in waiting:
            begun = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            body = await reader.readexactly(size)
            if b" 200 " not in head[:20] or b'"permit"' not in body:
                raise SystemExit(f"refused: {head[:60]!r} {body[:300]!r}")
            latencies.append(time.perf_counter() - begun)
        writer.close()

    begun = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(connections)))
    return time.perf_counter() - begun, latencies


if __name__ == "__main__":
    main()

"""What do the parts of a release cost on this machine, one by one?

    python benchmarks/parts.py

Microseconds of processor time, the lowest of several batches: what no arrangement of the code can
do without. The last lines are an HTTP answer of the usual size from an aiohttp application with the
limits of our servers and nothing behind it, driven by `wrk`, and one fdatasync.
"""

import asyncio
import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import uvloop
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from release import cpu_seconds

from envelock_formats import jose
from envelock_formats.canonical import encode, parse
from envelock_formats.framing import b64url, from_b64url
from envelock_formats.request import client_key
from envelock_formats.wrap import agree, public_pem, seal_share, unwrap_rsa, wrap_rsa
from envelock_service.server import runner

BATCHES = 30
CALLS = 200
SECONDS = 3
REQUEST, ANSWER = 3000, 1500  # bytes, about


def main() -> None:
    """Measure and print."""
    signer, peer = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    large = rsa.generate_private_key(65537, 2048)
    pem, share = public_pem(peer.public_key()), bytes(range(32))
    wrapped = wrap_rsa(share, large.public_key())
    claims = {"requestBody": json.dumps({"key": "x" * 1500}), "iat": 1, "exp": 2}
    token = jose.sign(signer, claims, typ="JWT")
    types = frozenset({"JWT"})
    read = jose.read(token, typ=types, max_bytes=9000)
    cipher = agree(signer, peer.public_key())
    rows = [{"id": "sha256:" + "a" * 64, "kid": "acme:patients:2026-11:v1", "pol": "b" * 64}]
    record = {
        "act": "open",
        "home": "acme",
        "objs": rows,
        "rh": "c" * 64,
        "ts": 1,
        "typ": "release",
    }
    parts: dict[str, Callable[[], object]] = {
        "verify a P-256 signature": lambda: jose.verify(read, signer.public_key()),
        "sign with P-256": lambda: jose.sign(signer, {"a": 1}, typ="t"),
        "P-256 agreement, HKDF": lambda: agree(signer, peer.public_key()),
        "make a P-256 key": lambda: ec.generate_private_key(ec.SECP256R1()),
        "load a PEM key": lambda: client_key(pem),
        "seal a share": lambda: seal_share(cipher, share, bytes(12)),
        "open an RSA-2048 wrap": lambda: unwrap_rsa(wrapped, large),
        "read a request token": lambda: jose.read(token, typ=types, max_bytes=9000),
        "write a record": lambda: encode(record),
        "read a record": lambda: parse(encode(record)),
        "base64url of 2 KB": lambda: from_b64url(b64url(bytes(2048))),
    }
    for name, work in parts.items():
        print(f"{name:26} {microseconds(work):8.1f} us")
    if shutil.which("wrk"):
        print(f"{'an empty HTTP answer':26} {empty_answer():8.1f} us")
    print(f"{'fdatasync of 8 KiB':26} {fdatasync():8.1f} us, wall time, median")


def microseconds(work: Callable[[], object]) -> float:
    """Processor time of one call: the lowest mean of a batch."""
    means = []
    for _ in range(BATCHES):
        begun = time.thread_time()
        for _ in range(CALLS):
            work()
        means.append((time.thread_time() - begun) / CALLS)
    return 1e6 * min(means)


def empty_answer() -> float:
    """Processor time of the server for one request, with 64 connections."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
        process = multiprocessing.get_context("fork").Process(target=serve, args=(bound,))
        process.start()
        time.sleep(1)
        script = f'wrk.method="POST"; wrk.body=string.rep("x",{REQUEST})'
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
            file.write(script)
            file.flush()
            before = cpu_seconds(process.pid or 0)
            command = ["wrk", "-t1", "-c64", f"-d{SECONDS}s", "-s", file.name]
            command.append(f"http://127.0.0.1:{port}/")
            done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 wrk
        spent = cpu_seconds(process.pid or 0) - before
        process.kill()
        process.join()
    count = int(done.stdout.partition(" requests in")[0].split()[-1])
    return 1e6 * spent / count


def serve(bound: socket.socket) -> None:
    """Answer every request, for ever."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=b"x" * ANSWER)

    async def run() -> None:
        app = web.Application()
        app.router.add_post("/", answer)
        served = runner(app)
        await served.setup()
        await web.SockSite(served, bound).start()
        await asyncio.Event().wait()

    uvloop.run(run())


def fdatasync() -> float:
    """Wall time of making 8 KiB durable, where temporary files lie."""
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "f").open("wb", 0) as file:
        costs = []
        for _ in range(200):
            file.write(bytes(8192))
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            costs.append(time.perf_counter() - begun)
    return 1e6 * sorted(costs)[100]


if __name__ == "__main__":
    main()

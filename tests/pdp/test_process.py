"""The decision point as a process, with a KAS's socket beside it."""

import asyncio
import json
import shutil
import signal
import sys
import urllib.request

import pytest
from aiohttp import web

import envelock_policies
from envelock_service import sockets
from envelock_service.server import runner

SETTINGS = '[pdp]\nissuer = "envelock-pdp"\n[callers]\n'


@pytest.fixture
async def epochs(tmp_path):
    """A KAS's internal socket that counts epochs."""
    told = []

    async def announce(request):
        told.append(await request.json())
        return web.json_response({"epoch": len(told), "record": 40 + len(told)})

    serving = web.Application()
    serving.router.add_post("/internal/v1/policies", announce)
    path = tmp_path / "run" / "kas.sock"
    bound, running = sockets.bind(path), runner(serving)
    await running.setup()
    await web.SockSite(running, bound).start()
    yield told
    await running.cleanup()
    sockets.unbind(bound, path)


async def _start(folder):
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-m",
        "envelock_pdp",
        "--data",
        str(folder),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def _data(folder, settings=SETTINGS):
    (folder / "envelock.toml").write_text(settings)
    shutil.copytree(envelock_policies.path("clinic"), folder / "policies" / "clinic")


async def _stop(process):
    process.send_signal(signal.SIGTERM)
    _, said = await asyncio.wait_for(process.communicate(), 10)
    return process.returncode, said.decode()


async def test_starts_reloads_and_stops(tmp_path, epochs):
    """One ready line; an edit is in force within seconds; SIGTERM ends it and its socket."""
    _data(tmp_path)
    process = await _start(tmp_path)
    ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
    published = json.loads((tmp_path / "pdp" / "jwks.json").read_text())
    keys = await asyncio.to_thread(
        lambda: urllib.request.urlopen(f"{ready['url']}/.well-known/jwks.json").read()  # noqa: S310 ours
    )
    hours = tmp_path / "policies" / "clinic" / "rules" / "hours.json"
    hours.write_text(hours.read_text().replace('"value": 6', '"value": 5'))
    async with asyncio.timeout(10):
        while len(epochs) < 2:  # noqa: ASYNC110 another process changes it
            await asyncio.sleep(0.05)
    hours.write_text("[")
    await asyncio.sleep(2)
    code, said = await _stop(process)

    assert ready["bundles"] == [{"tenant": "clinic", "epoch": 1}]
    assert (ready["ready"], "missing" in ready) == ("pdp", False)
    assert json.loads(keys) == published
    assert said.splitlines() == [
        "policy clinic: epoch 1 in force, record 41",
        "policy clinic: epoch 1 -> 2 in force, record 42",
        "policy clinic: epoch 2 kept: rules/hours.json line 1: expected a value",
    ]
    assert (code, (tmp_path / "run" / "pdp.sock").exists()) == (0, False)


async def test_says_what_is_missing_when_nobody_counts_epochs(tmp_path):
    """The ready line comes all the same, and names the bundle that waits."""
    _data(tmp_path)
    process = await _start(tmp_path)
    ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
    code, said = await _stop(process)

    assert (ready["bundles"], ready["missing"], code) == ([], ["clinic"], 0)
    assert said.startswith("policy clinic: waits for its epoch: ")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("[pdp]\nisuer = 1\n", "isuer"),
        ("[pdp]\ndecision_seconds = 61\n", "decision_seconds"),
        ('[pdp]\nlisten = "0.0.0.0:1"\n', "behind_proxy"),
        ('[pdp]\nlisten = "here"\n', "HOST:PORT"),
        ("[pdb]\n", "unknown section"),
    ],
)
async def test_refuses_settings_that_are_wrong(tmp_path, settings, words):
    """Exit 2, one line, no traceback."""
    _data(tmp_path, settings)
    process = await _start(tmp_path)
    _, said = await asyncio.wait_for(process.communicate(), 20)

    assert process.returncode == 2
    assert said.decode().startswith("error: ")
    assert words in said.decode()
    assert "Traceback" not in said.decode()
    assert not (tmp_path / "run" / "pdp.sock").exists()

"""Processes that are watched: what ends `up`, and what is tried again."""

import asyncio
import os
from pathlib import Path

import pytest

from envelock_service.children import Child, ChildError

MODULE = """
import pathlib, sys, time
starts = pathlib.Path(sys.argv[1])
number = len(starts.read_text()) if starts.exists() else 0
starts.write_text("x" * (number + 1))
codes = sys.argv[2].split(",")
code = codes[number] if number < len(codes) else "stay"
if code in {"dies", "stay"}:
    print('{"ready": true}', flush=True)
    time.sleep(60 if code == "stay" else 0)
sys.exit(1 if code == "dies" else int(code))
"""


def child(folder: Path, codes: str) -> Child:
    """A process that does at each start what *codes* say, and stays in the end."""
    (folder / "fake_child.py").write_text(MODULE)
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    arguments = ("fake_child", str(folder / "starts"), codes)
    return Child("fake", arguments, {"PYTHONPATH": path})


@pytest.mark.parametrize("code", [1, 2, 6])
async def test_a_first_start_that_fails_is_final(tmp_path: Path, code: int):
    """Its exit code becomes that of `up`."""
    with pytest.raises(ChildError) as refused:
        await child(tmp_path, str(code)).start()

    assert refused.value.exit_code == code


async def test_what_started_once_is_started_again_until_it_stays(tmp_path: Path):
    """A port that somebody else took meanwhile, exit 2, stops no deployment."""
    watched, told = child(tmp_path, "dies,2,2"), []
    up = asyncio.Event()

    def tell(line: str) -> None:
        told.append(line)
        if "up again" in line:
            up.set()

    await watched.start()
    watching = asyncio.create_task(watched.watch(tell))
    try:
        await asyncio.wait_for(
            asyncio.wait(
                {watching, asyncio.create_task(up.wait())}, return_when=asyncio.FIRST_COMPLETED
            ),
            20,
        )
        running = not watching.done()
    finally:
        watching.cancel()
        await watched.stop()

    assert running
    assert watched.starts == 4
    assert sum("exit 2" in line for line in told) == 2


async def test_a_ledger_that_does_not_verify_ends_the_watch(tmp_path: Path):
    """Exit 6: no restart mends it, and somebody must look."""
    watched = child(tmp_path, "dies,6")
    await watched.start()

    with pytest.raises(ChildError) as refused:
        await asyncio.wait_for(watched.watch(lambda _line: None), 20)
    assert refused.value.exit_code == 6

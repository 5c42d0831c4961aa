"""The event loop of every server: uvloop where it is installed."""

import asyncio
from collections.abc import Coroutine


def run(main: Coroutine[None, None, None]) -> None:
    """Run *main* to its end."""
    try:
        import uvloop  # noqa: PLC0415 used when it is installed
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)

"""The event loop of every server: uvloop where it is installed, and no core files."""

import asyncio
from collections.abc import Coroutine

from envelock_service.cores import forbid_core_dumps


def run(main: Coroutine[None, None, None]) -> None:
    """Run *main* to its end."""
    forbid_core_dumps()
    try:
        import uvloop  # noqa: PLC0415 used when it is installed
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)

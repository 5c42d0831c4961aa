"""Seal and open many rows at once with asyncio, over one pool of connections.

Start a deployment first: `envelock up`.
"""

import asyncio

from envelock import AsyncClient


async def main() -> None:
    """Seal twenty rows, then open them all."""
    async with AsyncClient(profile="doctor") as client:
        rows = [f"result {number}".encode() for number in range(20)]
        sealed = await asyncio.gather(
            *(client.encrypt(row, attrs="clearance=secret") for row in rows)
        )
        opened = await asyncio.gather(*(client.decrypt(row) for row in sealed))
    print("opened:", len(opened), "rows, all as they were:", opened == rows)


asyncio.run(main())

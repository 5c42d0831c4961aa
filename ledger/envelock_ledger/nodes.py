"""Nodes of the stored tree, read tile by tile.

Nodes of a full tile never change, so the last ones used are kept; clients ask for proofs from the
size that they saw last, and those sizes crowd together.
"""

from collections import OrderedDict

from envelock_ledger.merkle import STRATUM, node_hash
from envelock_ledger.store import Store

TILES_KEPT = 256  # about 50 kB each
_WIDTH = 1 << STRATUM


class StoredNodes:
    """Reads complete subtrees from a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tiles: OrderedDict[tuple[int, int], list[list[bytes]]] = OrderedDict()

    def node(self, level: int, number: int) -> bytes:
        """Hash of a complete subtree; `IndexError` when the store does not have it."""
        base, height = level // STRATUM * STRATUM, level % STRATUM
        shift = STRATUM - height
        tile = self._tile(base, number >> shift)
        return tile[height][number & ((1 << shift) - 1)]

    def _tile(self, base: int, number: int) -> list[list[bytes]]:
        key = (base, number)
        if key in self._tiles:
            self._tiles.move_to_end(key)
            return self._tiles[key]
        tile = [self._store.hashes(base, number * _WIDTH, (number + 1) * _WIDTH)]
        for _ in range(STRATUM - 1):
            below = tile[-1]
            pairs = zip(below[::2], below[1::2], strict=False)  # an odd one has no parent yet
            tile.append([node_hash(left, right) for left, right in pairs])
        if len(tile[0]) == _WIDTH:
            self._tiles[key] = tile
            if len(self._tiles) > TILES_KEPT:
                self._tiles.popitem(last=False)
        return tile

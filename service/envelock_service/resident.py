"""How much memory this process has."""

import os
from pathlib import Path


def resident_bytes() -> int:
    """Memory of this process that is in RAM, as Linux counts it."""
    with Path("/proc/self/statm").open(encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

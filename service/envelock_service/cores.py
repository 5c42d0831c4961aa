"""No core files: the memory of a server holds keys, and a dump of it would lie on a disk."""

import ctypes
import resource
import sys

_PR_SET_DUMPABLE = 4


def forbid_core_dumps() -> None:
    """Have the kernel write no memory of this process, or of its children, to a file.

    The limit covers core files; on Linux the process is not dumpable either, which also covers
    cores that are piped to a collector, and keeps other processes of the same user from attaching.
    What root does is not covered.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)

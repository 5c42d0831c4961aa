"""What a deployment makes once and relies on for ever, in a process of its own.

Run as `python -m faults.founding DIR`. Prints the digest of every file of secrets and keys.
"""

import asyncio
import hashlib
import os
import sys
from pathlib import Path

import orjson

from envelock_kas.custody import AES, EC
from envelock_kas.custody.local import LocalCustody
from envelock_service.datadir import DataDirectory


def digest(path: Path) -> str | None:
    """SHA-256 of a file in hex; None when it is not there."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def main() -> None:
    """Make a data directory with secrets, and keys beside it."""
    root = Path(sys.argv[1])
    directory = DataDirectory(root, os.urandom)
    (root.parent / "policies").mkdir()
    directory.prepare("127.0.0.1:0", root.parent / "policies", root)
    custody = LocalCustody(root / "keys", os.urandom)
    asyncio.run(custody.make("acme:v1", [AES, EC]))
    files = [path for name in ("secrets", "keys") for path in (root / name).iterdir()]
    made = {str(path.relative_to(root.parent)): digest(path) for path in files}
    os.write(sys.stdout.fileno(), orjson.dumps(made))


if __name__ == "__main__":
    main()

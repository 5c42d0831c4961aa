"""Write the golden vectors: `python tests/vectors/make.py`, once for each new file.

Vectors are frozen: a file that exists is never written again. A format that changes gets a new
label or version, and a file of its own beside the old one.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vectors.inputs import as_json, inputs
from vectors.ours import VECTORS, made_of


def whole(name: str, cases: dict[str, dict[str, object]]) -> bytes:
    """The content of one file; `out` is null where the input is refused."""
    made = [
        {"name": case, "in": given, "out": made_of(name, given)} for case, given in cases.items()
    ]
    return as_json({"format": name, "cases": made})


def main() -> int:
    """Write what is missing; the exit code is 1 when an existing file would come out otherwise."""
    differing = 0
    for name, cases in inputs().items():
        path = VECTORS / f"{name}.json"
        made = whole(name, cases)
        if not path.exists():
            path.write_bytes(made)
            sys.stdout.write(f"wrote {path.name}\n")
        elif path.read_bytes() != made:
            differing += 1
            sys.stdout.write(f"{path.name} is frozen, and would come out otherwise now\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())

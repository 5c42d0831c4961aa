"""An operator who cheats: has the files and the log's own key, and edits the database as it likes.

Nothing here goes through the writer. `put` makes every table fit the records that it is given, as
somebody would who knows the format; `resign` signs whatever is there.
"""

import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledger.auditor import Audit, audit
from ledger.world import World

from envelock_ledger.anchor import create_anchor
from envelock_ledger.checkpoint import Checkpoint
from envelock_ledger.errors import DamageError
from envelock_ledger.merkle import Spine, leaf_hash
from envelock_ledger.note import Signer, VerifierKey
from envelock_ledger.place import DATABASE

Fields = dict[str, Any]
ZERO = "0" * 64


@dataclass
class Rogue:
    """The operator of the stopped ledger of *world*."""

    world: World
    signer: Signer
    folder: Path  # where it puts what it shows to others

    @property
    def key(self) -> VerifierKey:
        """What the log's users pinned."""
        return self.world.signer.verifier

    def sql(self, statement: str, *values: object) -> list[tuple]:
        """Run one statement on the database, whatever its triggers say."""
        connection = sqlite3.connect(self.world.place.database)
        for trigger in ("entry_unchanged", "entry_kept"):
            connection.execute(f"DROP TRIGGER IF EXISTS {trigger}")
        rows = connection.execute(statement, values).fetchall()
        connection.commit()
        connection.close()
        return rows

    def records(self) -> list[bytes]:
        """Every record, as it is stored."""
        return [body for (body,) in self.sql("SELECT body FROM entry ORDER BY idx")]

    def fields(self) -> list[Fields]:
        """Every record, as values."""
        return [json.loads(body) for body in self.records()]

    def put(self, records: list[bytes]) -> None:
        """Make these the records, and every other table fit them."""
        tables = ("entry", "stratum", "state", "tenant", "fence", "topic")
        connection = sqlite3.connect(self.world.place.database)
        for trigger in ("entry_unchanged", "entry_kept"):
            connection.execute(f"DROP TRIGGER IF EXISTS {trigger}")
        for table in tables:
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names of ours
        run, spine = connection.execute, Spine()
        for index, body in enumerate(records):
            record, leaf = json.loads(body), leaf_hash(body)
            spine.append(leaf)
            run("INSERT INTO entry VALUES (?, ?, ?, ?)", (index, leaf, record["id"], body))
            end = (record["tn"], leaf, record["_tq"] + 1)
            run("INSERT OR REPLACE INTO tenant VALUES (?, ?, ?)", end)
            for moved in record.get("moves", {}).items():
                run("INSERT OR REPLACE INTO fence VALUES (?, ?)", moved)
            if "topic" in record:
                run("INSERT INTO topic VALUES (?, ?)", (record["topic"], index))
        connection.executemany("INSERT INTO stratum VALUES (?, ?, ?)", spine.strata)
        size, last = len(records), json.loads(records[-1])["_t"]
        state = (size, size - 1, spine.root, last)
        run("INSERT INTO state VALUES (0, ?, ?, ?, ?)", state)
        connection.commit()
        connection.close()

    def rewrite(self, change: Callable[[list[Fields]], list[Fields]]) -> None:
        """Change the history, and make index, chain, tenant chains and tables fit."""
        self.put(chained(change(self.fields())))

    def resign(self) -> None:
        """Sign what is there, and rewrite the anchor too, as if it had always been so."""
        self.world.place.anchor.unlink()
        create_anchor(self.world.place.anchor, self.signer, self._present())

    def note(self) -> str:
        """A checkpoint of what is there, signed now."""
        return self._present().sign(self.signer)

    def _present(self) -> Checkpoint:
        spine = Spine()
        for body in self.records():
            spine.append(leaf_hash(body))
        return Checkpoint(self.signer.verifier.name, spine.size, spine.root)

    def export(self, note: str | None = None) -> Path:
        """Show it to an auditor, under *note* or a signature made now; checks nothing."""
        first = json.dumps({"checkpoint": note or self.note(), "format": "envelock-export/1"},
                           ensure_ascii=False, separators=(",", ":"))  # fmt: skip
        lines = [first.encode()]
        for index, leaf, body in self.sql("SELECT idx, leaf, body FROM entry ORDER BY idx"):
            head = f'{{"index":{index},"leaf":"{leaf.hex()}","record":'
            lines.append(head.encode() + body + b"}")
        path = self.folder / "shown.jsonl"
        path.write_bytes(b"\n".join([*lines, b""]))
        return path

    def audit(self, *kept: Path, note: str | None = None) -> Audit:
        """What an auditor concludes, who has the pinned key and *kept*."""
        return audit("export", self.export(note), *kept, key=self.key)

    async def starts(self) -> bool:
        """Whether the ledger starts again."""
        try:
            writer = await self.world.start()
        except DamageError:
            return False
        await writer.aclose()
        return True

    def keep(self, name: str) -> Path:
        """Put the database aside, as a backup does."""
        return Path(shutil.copy(self.world.place.database, self.folder / name))

    def restore(self, backup: Path) -> None:
        """Put a backup back."""
        for suffix in ("-wal", "-shm"):
            self.world.place.database.with_name(f"{DATABASE}{suffix}").unlink(missing_ok=True)
        shutil.copy(backup, self.world.place.database)


def chained(history: list[Fields]) -> list[bytes]:
    """Records with index, chain and tenant chains as the format wants them."""
    records: list[bytes] = []
    previous, tenants = ZERO, dict[str, tuple[str, int]]()
    for index, fields in enumerate(history):
        before, position = tenants.get(fields["tn"], (ZERO, 0))
        serial = {"_i": index, "_p": previous, "_tp": before, "_tq": position}
        records.append(encoded(fields | serial))
        previous = leaf_hash(records[-1]).hex()
        tenants[fields["tn"]] = (previous, position + 1)
    return records


def follow(history: list[Fields]) -> list[bytes]:
    """Records with index and chain as the format wants them, and tenant chains as they are."""
    records: list[bytes] = []
    previous = ZERO
    for index, fields in enumerate(history):
        records.append(encoded(fields | {"_i": index, "_p": previous}))
        previous = leaf_hash(records[-1]).hex()
    return records


def encoded(fields: Fields) -> bytes:
    """Canonical JSON of ASCII names."""
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.encode()

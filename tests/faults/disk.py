"""A disk that loses power: what a process wrote, and what of it may be found afterwards.

A write is safe once its file was synced after it, a name once its directory was. Until then each
write, alone, may reach the medium whole, up to any sector, or not at all; a file may have grown
over bytes that never came, which then are zeros; and a directory may show any of the names it had
since it was synced last. File systems promise more than that; none promises less.
"""

import random
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

SECTOR = 512  # bytes that reach a medium together


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes at an offset."""

    offset: int
    data: bytes

    def torn(self, sectors: int) -> "Write":
        """The same write, cut at a border between sectors of the medium."""
        border = (self.offset // SECTOR + sectors) * SECTOR
        return Write(self.offset, self.data[: max(0, border - self.offset)])

    def late(self, sectors: int) -> "Write":
        """The same write without its beginning, which another sector holds."""
        border = max(self.offset, (self.offset // SECTOR + sectors) * SECTOR)
        return Write(border, self.data[border - self.offset :])


@dataclass(frozen=True, slots=True)
class Truncate:
    """A new length."""

    size: int


Change = Write | Truncate


@dataclass(slots=True, eq=False)
class Inode:
    """A file: what is safe of it, and what was changed since."""

    safe: bytearray = field(default_factory=bytearray)
    pending: list[Change] = field(default_factory=list)
    size: int = 0  # as processes see it

    def change(self, change: Change) -> None:
        """Take note of a change that is not safe yet."""
        self.pending.append(change)
        if isinstance(change, Truncate):
            self.size = change.size
        else:
            self.size = max(self.size, change.offset + len(change.data))

    def sync(self) -> None:
        """Everything so far is safe."""
        for change in self.pending:
            apply(self.safe, change)
        self.pending.clear()

    def after(self, keep: "Keeping") -> bytes:
        """What is found after the power went."""
        content = bytearray(self.safe)
        for change in self.pending:
            for part in keep.change(change):
                apply(content, part)
        return bytes(content)


@dataclass(slots=True, eq=False)
class Folder:
    """Names: what is safe of them, and what each was since."""

    safe: dict[str, "Inode | Folder"] = field(default_factory=dict)
    now: dict[str, "Inode | Folder"] = field(default_factory=dict)
    pending: dict[str, list["Inode | Folder | None"]] = field(default_factory=dict)

    def name(self, name: str, what: "Inode | Folder | None") -> None:
        """Give *what* a name, or take the name away."""
        self.pending.setdefault(name, [self.safe.get(name)]).append(what)
        if what is None:
            self.now.pop(name, None)
        else:
            self.now[name] = what

    def sync(self) -> None:
        """All names are safe as they are now."""
        self.safe = dict(self.now)
        self.pending.clear()

    def after(self, keep: "Keeping") -> dict[str, "Inode | Folder"]:
        """The names that are found after the power went."""
        found: dict[str, Inode | Folder | None] = dict(self.safe)
        found |= {name: keep.state(states) for name, states in self.pending.items()}
        return {name: what for name, what in found.items() if what is not None}


class Keeping:
    """What one power cut keeps of what was not safe, by chance.

    Each cut has a mood, from keeping nothing to keeping everything; keeping everything is what a
    process finds that was killed while the machine went on.
    """

    MOODS = (0.0, 0.3, 0.7, 0.95, 1.0)

    def __init__(self, chance: random.Random, mood: float | None = None) -> None:
        self._chance = chance
        self._mood = chance.choice(self.MOODS) if mood is None else mood

    def change(self, change: Change) -> list[Change]:
        """What remains of a change."""
        whole = self._chance.random() < 0.7 or isinstance(change, Truncate)
        if self._mood == 1.0 or (whole and self._chance.random() < self._mood):
            return [change]
        if self._mood == 0.0 or isinstance(change, Truncate):
            return []
        cut = self._chance.randint(0, len(change.data) // SECTOR + 1)
        part = self._chance.choice((change.torn, change.late))(cut)
        grown = Write(change.offset + len(change.data), b"")
        return [part, grown] if self._chance.random() < 0.5 else [part]

    def state(self, states: list["Inode | Folder | None"]) -> "Inode | Folder | None":
        """What a name is, of all that it was."""
        return states[-1] if self._mood == 1.0 else self._chance.choice(states)


def apply(content: bytearray, change: Change) -> None:
    """Change *content*; a gap before the change is zeros."""
    if isinstance(change, Truncate):
        del content[change.size :]
        content.extend(bytes(change.size - len(content)))
        return
    content.extend(bytes(max(0, change.offset - len(content))))
    content[change.offset : change.offset + len(change.data)] = change.data


@dataclass(slots=True)
class Disk:
    """Everything below one folder, by paths relative to it."""

    root: Folder = field(default_factory=Folder)

    def find(self, path: PurePosixPath) -> "Inode | Folder | None":
        """What *path* names now."""
        found: Inode | Folder | None = self.root
        for part in path.parts:
            found = found.now.get(part) if isinstance(found, Folder) else None
        return found

    def put(self, path: PurePosixPath, what: "Inode | Folder | None") -> None:
        """Name *what*, or take the name away."""
        parent = self.find(path.parent)
        if not isinstance(parent, Folder):
            raise TypeError(f"{path.parent} is not a folder of the traced process")
        parent.name(path.name, what)

    def lose_power(self, to: Path, keep: Keeping) -> None:
        """Write what is found afterwards below *to*, which is created."""
        _restore(self.root, to, keep)


def _restore(folder: Folder, to: Path, keep: Keeping) -> None:
    to.mkdir()
    for name, what in folder.after(keep).items():
        if isinstance(what, Folder):
            _restore(what, to / name, keep)
        else:
            (to / name).write_bytes(what.after(keep))

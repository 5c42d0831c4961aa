"""System calls of a process, recorded by strace, and played again on a simulated disk."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath

import pytest
from faults.disk import Disk, Folder, Inode, Truncate, Write

TESTS = Path(__file__).resolve().parents[1]
CALLS = (
    "?open,openat,close,write,?writev,pwrite64,?pwritev,?pwritev2,ftruncate,?truncate,fallocate,"
    "fsync,fdatasync,?rename,?renameat,renameat2,?link,linkat,?unlink,unlinkat,?mkdir,mkdirat"
)
STDOUT = 1
_LINE = re.compile(r"^(\d+) +(\w+)\((.*)\) += +(-?\d+)(?: .*)?$", re.DOTALL)
_BEGUN = re.compile(r"^(\d+) +(\w+)\((.*) <unfinished \.\.\.>$", re.DOTALL)
_RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$", re.DOTALL)
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True, slots=True)
class Call:
    """One system call that succeeded."""

    name: str
    arguments: str  # without its texts
    texts: tuple[bytes, ...]
    result: int

    @property
    def numbers(self) -> list[int]:
        """The plain numbers among the arguments."""
        return [int(one) for one in re.findall(r"(?<![\w-])\d+(?!\w)", self.arguments)]


@cache
def missing() -> str | None:
    """Why nothing can be traced here; None when it can."""
    strace = shutil.which("strace")
    if strace is None:
        return "strace is not installed"
    tried = subprocess.run([strace, "-f", "-qq", "-o", "/dev/null", "true"], check=False)
    return None if tried.returncode == 0 else "strace may not trace here"


def require_strace() -> None:
    """Skip the test where no process can be traced."""
    if (reason := missing()) is not None:
        pytest.skip(reason)


def command(options: Sequence[str], module: str, folder: Path, *arguments: str) -> list[str]:
    """A module of these tests under strace, on *folder*."""
    strace = ["strace", "-f", "-qq", "-e", "signal=none", *options]
    return [*strace, sys.executable, "-m", module, str(folder), *arguments]


def traced(log: Path, module: str, folder: Path, *arguments: str) -> list[Call]:
    """Run *module* on *folder*; the calls it made, in the order in which they ended."""
    options = ["-xx", "-s", "4000000", "-e", f"trace={CALLS}", "-o", str(log)]
    subprocess.run(
        command(options, module, folder, *arguments),
        cwd=TESTS,
        check=False,  # the target may have been told to die
        stdout=subprocess.DEVNULL,
        timeout=100,
    )
    return list(calls(log.read_text("ascii").splitlines()))


def calls(lines: Sequence[str]) -> Iterator[Call]:
    """Read a trace. A line to stdout counts from its beginning: somebody may have read it."""
    begun: dict[str, str] = {}
    for line in lines:
        if (part := _BEGUN.match(line)) is not None:
            thread, name, arguments = part.groups()
            begun[thread] = f"{thread} {name}({arguments}"
            if name == "write" and arguments.startswith(f"{STDOUT},"):
                yield _call(name, arguments, 0)
                del begun[thread]
            continue
        whole = line
        if (part := _RESUMED.match(line)) is not None:
            if part[1] not in begun:
                continue
            whole = begun.pop(part[1]) + part[3]
        if (part := _LINE.match(whole)) is not None and int(part[4]) >= 0:
            yield _call(part[2], part[3], int(part[4]))


def _call(name: str, arguments: str, result: int) -> Call:
    texts = tuple(bytes.fromhex(one.replace("\\x", "")) for one in _TEXT.findall(arguments))
    return Call(name, _TEXT.sub("TEXT", arguments), texts, result)


@dataclass(slots=True)
class Replay:
    """Plays calls of one process after the other on a disk; keeps what they told on stdout."""

    top: PurePosixPath  # the traced folder
    disk: Disk = field(default_factory=Disk)
    told: list[bytes] = field(default_factory=list)
    _files: dict[int, tuple[Inode | Folder, bool]] = field(default_factory=dict)  # appending?
    _at: dict[int, int] = field(default_factory=dict)  # positions

    def concerns(self, call: Call) -> bool:
        """Whether *call* touches the traced folder, or tells something; `play` it all the same."""
        within = any(self._inside(text) is not None for text in call.texts)
        return within or self._ours(call) or call.name == "write"

    def play(self, call: Call) -> None:
        """Do to the disk what *call* did to the real one."""
        paths = [self._inside(text) for text in call.texts]
        match call.name:
            case "open" | "openat":
                self._open(call, paths[0])
            case "close":
                self._files.pop(call.numbers[0], None)
            case "write" if call.numbers[0] == STDOUT:
                self.told.append(call.texts[0])
            case "write" | "pwrite64" | "ftruncate" | "fsync" | "fdatasync":
                self._change(call)
            case "mkdir" | "mkdirat" if paths[0] is not None:
                self.disk.put(paths[0], Folder())
            case "unlink" | "unlinkat" if paths[0] is not None:
                self.disk.put(paths[0], None)
            case "link" | "linkat" | "rename" | "renameat" | "renameat2":
                self._rename(call, paths)
            case name if any(path is not None for path in paths) or self._ours(call):
                raise AssertionError(f"{name} is not simulated")

    def _inside(self, text: bytes) -> PurePosixPath | None:
        path = PurePosixPath(text.decode("utf-8", "replace"))
        return path.relative_to(self.top) if path.is_relative_to(self.top) else None

    def _ours(self, call: Call) -> bool:
        return bool(call.numbers) and call.numbers[0] in self._files

    def _open(self, call: Call, path: PurePosixPath | None) -> None:
        self._files.pop(call.result, None)
        if path is None:
            return
        found = self.disk.find(path)
        if found is None:
            found = Inode()
            self.disk.put(path, found)
        if "O_TRUNC" in call.arguments and isinstance(found, Inode):
            found.change(Truncate(0))
        self._files[call.result] = (found, "O_APPEND" in call.arguments)
        self._at[call.result] = 0

    def _change(self, call: Call) -> None:
        descriptor = call.numbers[0]
        what, appending = self._files.get(descriptor, (None, False))
        if what is None:
            return
        if call.name in ("fsync", "fdatasync"):
            what.sync()
        elif isinstance(what, Folder):
            raise AssertionError(f"{call.name} of a folder")
        elif call.name == "ftruncate":
            what.change(Truncate(call.numbers[-1]))
        else:
            at = what.size if appending else self._at[descriptor]
            offset = call.numbers[-1] if call.name == "pwrite64" else at
            what.change(Write(offset, call.texts[0][: call.result]))
            if call.name == "write":
                self._at[descriptor] = offset + call.result

    def _rename(self, call: Call, paths: list[PurePosixPath | None]) -> None:
        old, new = paths
        if old is None or new is None:
            return
        what = self.disk.find(old)
        self.disk.put(new, what)
        if call.name.startswith("rename"):
            self.disk.put(old, None)

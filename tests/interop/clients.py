"""Clients that nobody here wrote, and ours: installed beside the tree, driven as processes.

Each lies in a folder of the cache with what a registry served for the versions in its manifest
(`go/go.mod`, `python/requirements.txt`, `rust/Cargo.toml`, `js/package.json`), and is made again
when manifest or driver change. One that cannot be had says why, and is never taken for a pass.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("ENVELOCK_INTEROP_CACHE", HERE.parents[1] / ".interop"))
OK, REFUSED, NOT_RUN = "ok", "refused", "not run"
UNSUPPORTED = 4  # a driver's exit code for what its client does not have
INSTALL_SECONDS = 1800
_WORDS_SHOWN = 400


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody at a server: what each driver is told."""

    server: str
    issuer: str
    client_id: str
    secret: str = field(repr=False)

    @property
    def options(self) -> tuple[str, ...]:
        return (
            *("--server", self.server, "--issuer", self.issuer),
            *("--client-id", self.client_id, "--client-secret", self.secret),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one operation of one client ended; `words` are the client's own, `said` its stdout."""

    state: str
    words: str = ""
    said: str = ""

    @property
    def ok(self) -> bool:
        return self.state == OK


@dataclass(frozen=True, slots=True)
class Installed:
    """A client that can be driven, or the reason that it cannot."""

    name: str
    command: tuple[str, ...] = ()
    missing: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    dpop: str = "on"  # how it is used as it comes

    def run(
        self, operation: str, person: Person, *options: object, seconds: float = 120
    ) -> Outcome:
        """Run `driver OPERATION` as *person* with *options*."""
        if self.missing:
            return Outcome(NOT_RUN, self.missing)
        words = [*self.command, operation, *person.options, *map(str, options)]
        if "--dpop" not in words:
            words += ["--dpop", self.dpop]
        try:
            done = subprocess.run(
                words,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self.environment},
                check=False,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            return Outcome(REFUSED, f"no end within {seconds:.0f} s")
        said = done.stdout.decode(errors="replace")
        told = _told(done.stderr.decode(errors="replace"))
        if done.returncode == 0:
            return Outcome(OK, told, said)
        return Outcome(NOT_RUN if done.returncode == UNSUPPORTED else REFUSED, told, said)


def _told(errors: str) -> str:
    """The lines that say something, without a client's remarks on itself."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    telling = [line for line in lines if "without a context manager" not in line]
    return " / ".join(telling)[:_WORDS_SHOWN]


def ours() -> Installed:
    """Our own SDK, in this interpreter."""
    return Installed("envelock", (sys.executable, str(HERE / "ours" / "driver.py")))


def go(cache: Path = CACHE) -> Installed:
    """The Go SDK of the platform, built by the Go that `go.mod` asks for: fetched where need be."""

    def make(folder: Path) -> None:
        build = ["go", "build", "-C", str(HERE / "go"), "-o", str(folder / "driver"), "."]
        _done(build, {"GOTOOLCHAIN": "auto"})

    program = cache / "go" / "driver"
    missing = _made(cache / "go", "go", ("go.mod", "go.sum", "main.go"), "go", make)
    return Installed("go", (str(program),), missing)


def python(cache: Path = CACHE) -> Installed:
    """otdf-python, in an environment of its own."""
    interpreter = cache / "python" / "bin" / "python"

    def make(folder: Path) -> None:
        _done([sys.executable, "-m", "venv", str(folder)])
        pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--require-hashes"]
        _done([*pip, "--no-deps", "-r", str(HERE / "python" / "requirements.txt")])

    missing = _made(cache / "python", "python", ("requirements.txt",), sys.executable, make)
    command = (str(interpreter), str(HERE / "python" / "driver.py"))
    return Installed("otdf-python", command, missing, dpop="off")


def rust(cache: Path = CACHE) -> Installed:
    """The crate `opentdf`, of another team."""

    def make(folder: Path) -> None:
        shutil.copytree(HERE / "rust", folder, dirs_exist_ok=True)
        _done(["cargo", "build", "--quiet", "--manifest-path", str(folder / "Cargo.toml")])

    program = cache / "rust" / "target" / "debug" / "driver"
    missing = _made(cache / "rust", "rust", ("Cargo.toml", "src/main.rs"), "cargo", make)
    return Installed("opentdf-rs", (str(program),), missing, dpop="off")


def javascript(cache: Path = CACHE) -> Installed:
    """`@opentdf/client`, the predecessor of the JavaScript SDK."""

    def make(folder: Path) -> None:
        shutil.copytree(HERE / "js", folder, dirs_exist_ok=True)
        _done(["npm", "ci", "--no-audit", "--no-fund", "--prefix", str(folder)])

    files = ("package.json", "package-lock.json", "driver.mjs")
    missing = _made(cache / "js", "js", files, "npm", make)
    command = ("node", str(cache / "js" / "driver.mjs"))
    return Installed("opentdf-client", command, missing, dpop="off")


FOREIGN: tuple[Callable[[], Installed], ...] = (go, python, rust, javascript)


def _made(
    folder: Path,
    sources: str,
    names: tuple[str, ...],
    tool: str,
    make: Callable[[Path], object],
) -> str:
    """Make *folder* unless it was made from these very files; the reason when it cannot be."""
    if shutil.which(tool) is None:
        return f"there is no {tool} here"
    wanted = hashlib.sha256()
    for name in names:
        wanted.update((HERE / sources / name).read_bytes())
    stamp = folder / ".made"
    if stamp.is_file() and stamp.read_text() == wanted.hexdigest():
        return ""
    folder.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    try:
        make(folder)
    except subprocess.CalledProcessError as error:
        return f"{tool} does not install it: {_told(error.stderr.decode(errors='replace'))}"
    except subprocess.TimeoutExpired:
        return f"{tool} does not end within {INSTALL_SECONDS} s"
    stamp.write_text(wanted.hexdigest())
    return ""


def _done(command: list[str], environment: Mapping[str, str] | None = None) -> None:
    subprocess.run(
        command,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
        check=True,
        timeout=INSTALL_SECONDS,
    )

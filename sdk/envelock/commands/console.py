"""What every command is handed: the global options, a way to print, and a way to the servers.

stdout is data, stderr is for people. The commands of other rooms see this object through a Protocol
of their own, so they need nothing of the SDK.
"""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from envelock_formats.printable import printable

if TYPE_CHECKING:
    from envelock.client import Client
    from envelock_formats.canonical import Json


OPERATOR = "operator"  # the profile that keys are operated on with, unless another is chosen


@dataclass(frozen=True, slots=True)
class Console:
    """Where the command line runs, as whom, and for whom it prints."""

    directory: Path | None = None  # as `--data` named it
    profile: str | None = None  # None: as the environment says
    json: bool = False

    @property
    def data(self) -> Path:
        """The data directory of `envelock up`: as it was named, else as the environment says."""
        from envelock.profile import data_directory  # noqa: PLC0415 keeps `envelock --help` fast

        return data_directory(os.environ) if self.directory is None else self.directory

    @property
    def data_given(self) -> bool:
        """Whether the data directory was named on the command line."""
        return self.directory is not None

    def emit(self, value: "dict[str, Json]", lines: Iterable[str]) -> None:
        """Print *value* as one line of JSON with `--json`, else *lines*, made safe to print."""
        if self.json:
            write_line(sys.stdout, as_json(value))
            return
        for line in lines:
            write_line(sys.stdout, printable(line))

    def done(self, value: "dict[str, Json]", line: str) -> None:
        """Say that something was done: *value* on stdout with `--json`, else *line* on stderr."""
        if self.json:
            self.emit(value, ())
        else:
            self.tell(line)

    def tell(self, line: str) -> None:
        """Print a line for people on stderr."""
        write_line(sys.stderr, printable(line))

    def client(self) -> "Client":
        """A client that acts as the chosen profile.

        Raises:
            ConfigError: There is no such profile, or none was chosen.
        """
        from envelock.client import Client  # noqa: PLC0415 keeps `envelock --help` fast
        from envelock.profile import load_profile  # noqa: PLC0415 as above

        return Client(profile=load_profile(self.profile, os.environ, self.data).file)

    def client_of(self, name: str) -> "Client":
        """A client that acts as another profile: a name, or the path of its file.

        Raises:
            ConfigError: There is no such profile.
        """
        from envelock.client import Client  # noqa: PLC0415 keeps `envelock --help` fast
        from envelock.profile import load_profile, name_or_file  # noqa: PLC0415 as above

        return Client(profile=load_profile(name_or_file(name), os.environ, self.data).file)

    def operate(self, method: str, path: str, body: "Mapping[str, Json]") -> "dict[str, Json]":
        """Call the operators' API, and return its answer.

        Where no profile was chosen it is `operator`, if there is one.

        Args:
            method: `GET` or `POST`.
            path: Of the URL, beginning with `/v1/`.
            body: For a POST.

        Raises:
            EnvelockError: The server refuses, with its own words, or does not answer.
        """
        from envelock.commands.operating import operate  # noqa: PLC0415 as above

        with self._operator().client() as client:
            return operate(client, method, path, body)

    def _operator(self) -> "Console":
        from envelock.profile import list_profiles  # noqa: PLC0415 as above

        chosen = (
            self.profile or os.environ.get("ENVELOCK_PROFILE") or os.environ.get("ENVELOCK_URL")
        )
        if chosen or OPERATOR not in list_profiles(os.environ, self.data):
            return self
        return replace(self, profile=OPERATOR)

    def object_ids(self, path: Path) -> list[str]:
        """Every id under which the ledger may know the sealed file at *path*; nothing is verified.

        Raises:
            SealedFileError: It is no sealed file.
        """
        from envelock.commands.inspect import ids_of  # noqa: PLC0415 as above
        from envelock.reader import SealedFile  # noqa: PLC0415 as above

        with SealedFile.open(path, legacy=True) as sealed:
            return ids_of(sealed)


def as_json(value: "Mapping[str, Json]") -> str:
    """One line of JSON in ASCII, so that nothing in it can act on a terminal."""
    return json.dumps(value, ensure_ascii=True, separators=(", ", ": "))


def write_line(stream: TextIO, line: str) -> None:
    """Write *line* to a text stream at once."""
    stream.write(f"{line}\n")
    stream.flush()

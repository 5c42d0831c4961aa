"""The PDP's public keys that this KAS pins: a JWK set in a file, read again when it changes."""

import logging
from collections.abc import Mapping
from pathlib import Path

from envelock_formats import jose
from envelock_formats.canonical import parse_object
from envelock_formats.errors import FormatError
from envelock_service.oidc import read_jwks

MAX_FILE = 256 * 1024
_log = logging.getLogger(__name__)


class PinnedKeys:
    """Keys from *file*. While the file cannot be read, the keys read last stay pinned."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stamp: tuple[int, int] | None = None
        self._keys: Mapping[str, jose.VerifyingKey] = {}

    def current(self) -> Mapping[str, jose.VerifyingKey]:
        """The keys by `kid`; empty before the file exists."""
        try:
            found = self._file.stat()
            stamp = found.st_mtime_ns, found.st_ino
            if stamp != self._stamp:
                document = parse_object(self._file.read_bytes(), max_bytes=MAX_FILE)
                self._keys, self._stamp = read_jwks(document), stamp
        except (OSError, FormatError) as error:
            _log.warning("PDP keys in %s are not to be had: %s", self._file, error)
        return self._keys

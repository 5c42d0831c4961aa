"""What can go wrong for a consumer: one class for each exit code.

Messages and hints are for people and hold no secret. `code` is stable and for programs.
"""

from functools import partial
from typing import Any, ClassVar, Self

from envelock_formats import errors as formats


class EnvelockError(Exception):
    """The family. Raised itself only for what no other class describes."""

    exit_code: ClassVar[int] = 1
    default_code: ClassVar[str] = "error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        request_id: str | None = None,
        server: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = self.default_code if code is None else code
        self.hint = hint  # what to do next, one line
        self.request_id = request_id  # names the record in the ledger
        self.server = server  # which of several key access servers it is about

    def at(self, server: str) -> Self:
        """The same error, saying at which of several key access servers."""
        fields = self._fields() | {"server": server}
        return type(self)(f"key access server {server}: {self}", **fields)

    def __reduce__(self) -> tuple[partial[Self], tuple[str]]:
        return partial(type(self), **self._fields()), (str(self),)

    def _fields(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "hint": self.hint,
            "request_id": self.request_id,
            "server": self.server,
        }


class ConfigError(EnvelockError):
    """The call, the profile or the target is wrong; nothing was sent."""

    exit_code = 2
    default_code = "config"


class NotAuthenticatedError(EnvelockError):
    """No token, or one that the server does not take."""

    exit_code = 3
    default_code = "not_authenticated"


class DeniedError(EnvelockError):
    """Policy says no. The reason is in the ledger, not here."""

    exit_code = 3
    default_code = "denied"


class SealedFileError(EnvelockError):
    """The file itself is the problem."""

    exit_code = 4
    default_code = "sealed_file"


class FormatError(SealedFileError):
    """Not a sealed file, or one of a form or algorithm that is not accepted."""

    default_code = "format"


class TamperedError(SealedFileError):
    """The root signature, a segment or a key share does not fit: changed bytes, or a wrong key."""

    default_code = "tampered"


class KasNotAllowedError(SealedFileError):
    """The file names a key access server that is not on the allowlist; it was not contacted."""

    default_code = "kas_not_allowed"


class UnavailableError(EnvelockError):
    """A server did not answer, or could not decide. Safe to try again."""

    exit_code = 5
    default_code = "unavailable"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        request_id: str | None = None,
        server: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, code=code, hint=hint, request_id=request_id, server=server)
        self.retry_after = retry_after  # seconds, when the server named them

    def _fields(self) -> dict[str, Any]:
        return {**super()._fields(), "retry_after": self.retry_after}


class ReceiptError(EnvelockError):
    """A receipt, checkpoint or pinned key does not verify."""

    exit_code = 6
    default_code = "receipt"


def sealed_file_error(error: formats.FormatError) -> SealedFileError:
    """The consumer's error for one that the formats raised about a sealed file."""
    match error:
        case formats.IntegrityError():
            hint = "the file was changed, or its key is another; fetch it anew from its source"
            return TamperedError(str(error), hint=hint)
        case formats.UnsupportedAlgorithmError():
            return FormatError(str(error), code="unsupported_algorithm")
        case _:
            return FormatError(str(error))

"""The one error family of the ledger."""


class LedgerError(Exception):
    """Base class: something that was recorded, or claims to be, does not hold.

    Args:
        message: What happened, and to which thing.
        hint: What to do next, or nothing.
    """

    exit_code = 6
    code = "ledger"

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class RecordError(LedgerError):
    """A record, or an entry that should become one, is not well-formed."""

    code = "record"


class ProofError(LedgerError):
    """A note, checkpoint, proof or receipt that does not parse or does not verify."""

    code = "proof"


class DamageError(LedgerError):
    """What is stored contradicts itself, its anchor or its log key; nothing is signed over it.

    Args:
        message: What does not fit what.
        hint: What to do next, or nothing.
        index: First bad record, when one can be named.
        column: Its column in the database.
    """

    code = "ledger_damaged"

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        *,
        index: int | None = None,
        column: str | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.index, self.column = index, column


class LedgerUnavailableError(LedgerError):
    """The ledger did not answer, or is closed.

    After an append the outcome is unknown: look the record up by its id before trying again.
    """

    exit_code = 5
    code = "ledger_unavailable"


class LedgerUsageError(LedgerError):
    """The caller asked for something that its role, or the command, does not offer."""

    exit_code = 2
    code = "usage"

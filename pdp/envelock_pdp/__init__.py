"""The policy decision point: decides, and signs what it decided."""


class PdpError(Exception):
    """Base class; never raised itself. `exit_code`, `code` and `hint` are for the command line."""

    exit_code = 1
    code = "pdp"
    hint: str | None = None


class BundleError(PdpError):
    """A policy bundle that cannot be put in force.

    Args:
        where: The file, relative to the bundle, with a line or a JSON pointer when there is one.
        problem: What is wrong there.
    """

    exit_code = 4
    code = "bundle"

    def __init__(self, where: str, problem: str, hint: str | None = None) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where
        self.problem = problem
        self.hint = hint


class NotInForceError(PdpError):
    """The tenant has no bundle in force, or its newest one waits for its epoch. Safe to retry."""

    exit_code = 5
    code = "policy_unavailable"


class QuestionError(PdpError):
    """A question that lacks something or is malformed; the message names the member."""

    exit_code = 2
    code = "malformed_request"


class RollbackError(PdpError):
    """The bundle was in force before and another has followed; an operator must confirm it."""

    exit_code = 2
    code = "policy_rollback"


class EpochsUnavailableError(PdpError):
    """No epoch is to be had: whoever counts them does not answer. Safe to retry."""

    exit_code = 5
    code = "epochs_unavailable"


__all__ = [
    "BundleError",
    "EpochsUnavailableError",
    "NotInForceError",
    "PdpError",
    "QuestionError",
    "RollbackError",
]

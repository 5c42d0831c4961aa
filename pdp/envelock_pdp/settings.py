"""Section `[pdp]` of the settings."""

import msgspec

from envelock_formats.decision import MAX_LIFETIME_SECONDS

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class PdpSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the decision point; paths are relative to the data directory.

    `issuer` is the `iss` of decisions. `policies` is one bundle or a folder of them.
    `decision_seconds` is how long a decision is good for. `confirm_rollback` holds digests of
    bundles (base64url) that may come back after another was in force. `origins` are the addresses
    that clients know this server by, for proofs of possession; the one it listens on is implied.
    `subject_per_second` and `subject_burst` bound what one subject asks of the public API: a call
    costs one, one more for each KiB of it, and one for each question.
    `behind_proxy` says that TLS ends in front of this server: it may then listen beyond loopback.
    """

    issuer: str = "envelock-pdp"
    policies: str = "policies"
    listen: str = "127.0.0.1:0"
    decision_seconds: int = 30
    confirm_rollback: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    subject_per_second: float = 200.0
    subject_burst: float = 2_000.0
    behind_proxy: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.decision_seconds <= MAX_LIFETIME_SECONDS:
            raise ValueError(f"decision_seconds: 1 to {MAX_LIFETIME_SECONDS}")
        if self.subject_per_second <= 0 or self.subject_burst < 1:
            raise ValueError("subject_per_second: more than 0, subject_burst: at least 1")
        if not self.issuer:
            raise ValueError("issuer: not empty")
        if not self.address[1].isdecimal():
            raise ValueError("listen: expected HOST:PORT")
        if self.address[0] not in _LOOPBACK and not self.behind_proxy:
            raise ValueError("listen: beyond loopback only with behind_proxy = true")

    @property
    def address(self) -> tuple[str, str]:
        """Host and port to listen on."""
        host, _, port = self.listen.rpartition(":")
        return host.removeprefix("[").removesuffix("]"), port

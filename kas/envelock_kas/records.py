"""What the KAS writes into the ledger, field by field.

Every record has `id` (UUIDv7), `tn` (the tenant whose chain it joins), `ts` (microseconds), `typ`,
`v`, `kas`, `req` (the id that the caller saw). Subject, address and user agent are personal: they
stand as salted commitments (`c`), and their openings can be erased.

| typ | further fields |
|---|---|
| release, retry | `act`, `rh`, `home`, `objs[{id, kid, pol}]`, `bundle`, `epoch`, `rules`, `dec` |
| denied | the same as far as known, `rsn`; in `objs` also `rsn`; `n` when it stands for several |
| error | `rsn`, `rh` when known |
| issue | as release, with `scope` |
| rebind | as release, with `new[{id, kid, pol}]`, and `moves` when an online wrap was replaced |
| key.lifecycle | `topic`, `moves`, `keys`, `op` |
| key.wraps | `topic`, `moves`, `kid`, `upto` |
| policy.change | `topic`, `moves`, `bundle`, `namespaces`, `sharing`, `confirmed` |
| subject.revoke, admin | `topic`, `moves`, `op` |
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from envelock_formats.canonical import Json
from envelock_formats.framing import digest, framed
from envelock_formats.request import Caller
from envelock_ledger.entry import Opening
from envelock_ledger.record import encode_body

SALT_SIZE = 16
_MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from: its id and what the connection itself tells."""

    request_id: str
    address: str | None = field(default=None, repr=False)
    user_agent: str | None = field(default=None, repr=False)


class Scribe:
    """Writes bodies of records: adds id, time, version, and hides what is personal.

    Args:
        clock: Unix seconds.
        entropy: n random bytes.
        kas_id: This KAS.
    """

    def __init__(
        self, clock: Callable[[], float], entropy: Callable[[int], bytes], kas_id: str
    ) -> None:
        self._clock = clock
        self._entropy = entropy
        self._kas_id = kas_id

    def write(
        self,
        typ: str,
        tenant: str,
        origin: Origin,
        caller: Caller | None,
        fields: Mapping[str, Json],
    ) -> tuple[bytes, tuple[Opening, ...]]:
        """The body of a record and the openings of its commitments."""
        now = self._clock()
        whole: dict[str, Json] = dict(fields) | {
            "id": uuid7(int(now * 1000), self._entropy(10)),
            "kas": self._kas_id,
            "req": origin.request_id,
            "tn": tenant,
            "ts": int(now * _MICROSECONDS),
            "typ": typ,
            "v": 1,
        }
        return encode_body(whole, _personal(origin, caller), lambda: self._entropy(SALT_SIZE))


def _personal(origin: Origin, caller: Caller | None) -> dict[str, Json]:
    personal: dict[str, Json] = {}
    if caller is not None:
        personal["sub"] = [caller.issuer, caller.subject]
    if origin.address:
        personal["addr"] = origin.address
    if origin.user_agent:
        personal["ua"] = origin.user_agent
    return personal


def uuid7(milliseconds: int, entropy: bytes) -> str:
    """A UUID version 7 (RFC 9562 section 5.7) from a time and 10 random bytes."""
    raw = bytearray(milliseconds.to_bytes(6, "big") + entropy)
    raw[6] = 0x70 | raw[6] & 0x0F
    raw[8] = 0x80 | raw[8] & 0x3F
    text = raw.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def subject_fence(secret: bytes, tenant: str, issuer: str, subject: str) -> str:
    """The ledger's name for a subject at home in *tenant*: an HMAC, so the ledger names nobody.

    The tenant is in it because an operator shuts out, and lets in, the subjects of one tenant only,
    while several tenants may share an issuer.
    """
    parts = (part.encode() for part in (tenant, issuer, subject))
    named = framed("envelock/subject/v1", *parts)
    return "subject:" + hmac.digest(secret, named, hashlib.sha256).hex()[:32]


def decision_name(issuer: str, tenant: str, jti: str) -> str:
    """The once-name of a decision."""
    parts = (part.encode() for part in (issuer, tenant, jti))
    return "dec:" + digest("envelock/decision-id/v1", *parts).hex()

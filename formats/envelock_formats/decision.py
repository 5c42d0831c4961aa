"""Signed decisions: the claims, how they are built, verified, and held against a request.

A decision is a compact JWS with `typ: kas-decision+jwt`, ES256 or EdDSA. It names the caller, the
objects with the digests of their policies and wrapped keys, the key that shares are sealed to, and
the bundle and epoch that it was made under. It is good for at most 60 seconds and for one request.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from envelock_formats import jose
from envelock_formats.canonical import Json, convert, plain
from envelock_formats.errors import FormatError
from envelock_formats.framing import b64url
from envelock_formats.request import Caller, RequestedObject

TYPE = "kas-decision+jwt"
MAX_BYTES = 64 * 1024
MAX_LIFETIME_SECONDS = 60
MAX_OBJECTS = 100
SKEW_SECONDS = 5
Act = Literal["open", "seal", "rebind"]


class DecisionError(FormatError):
    """A decision that is malformed, expired, for another KAS, or not signed by a known key."""


class DecisionMismatchError(FormatError):
    """A valid decision that was made for another request. The message names the claim."""


class DecidedObject(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What was decided about one object; digests are base64url of 32 bytes."""

    id: str
    policy_sha256: str
    keys_sha256: str
    permit: bool
    obligations: tuple[str, ...] = ()
    new_policy_sha256: str | None = None  # only for `rebind`


class DecidedBy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bundle that decided: digest (base64url), epoch, ids of the rules that applied."""

    bundle: str
    epoch: int
    rules: tuple[str, ...]


class Confirmation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The key that the caller's token is bound to (RFC 7800, RFC 9449 section 6)."""

    jkt: str


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The claims. `aud` is one `kas_id`, never a list; times are unix seconds."""

    iss: str
    aud: str
    sub: str
    sub_iss: str  # issuer of the caller's token: two issuers may use one subject
    sub_tenant: str
    tenant: str
    act: Act
    objs: tuple[DecidedObject, ...]
    key_sha256: str
    policy: DecidedBy
    iat: int
    nbf: int
    exp: int
    jti: str
    cnf: Confirmation | None = None  # absent when the token is unbound

    def __post_init__(self) -> None:
        if not 1 <= len(self.objs) <= MAX_OBJECTS:
            raise DecisionError(f"a decision covers 1 to {MAX_OBJECTS} objects")
        if len({decided.id for decided in self.objs}) != len(self.objs):
            raise DecisionError("a decision names an object twice")
        if not 0 < self.exp - self.iat <= MAX_LIFETIME_SECONDS:
            raise DecisionError(f"a decision is good for at most {MAX_LIFETIME_SECONDS} s")
        if not self.jti:
            raise DecisionError("a decision has an id")


def sign(decision: Decision, key: jose.SigningKey, kid: str) -> str:
    """Sign *decision*; returns the compact JWS."""
    return jose.sign(key, plain(decision), typ=TYPE, kid=kid)


def verify(
    token: str,
    keys: Mapping[str, jose.VerifyingKey],
    *,
    issuer: str,
    kas_id: str,
    now: int,
) -> Decision:
    """Verify signature, type, issuer, audience and times of a decision.

    Args:
        token: The compact JWS.
        keys: The PDP's public keys by `kid`; a decision that names no known key is refused.
        issuer: The PDP that must have made it.
        kas_id: The KAS that it must be for.
        now: Unix seconds. `iat` and `nbf` may be ahead by `SKEW_SECONDS`; `exp` has no grace.

    Raises:
        DecisionError: Anything fails; what exactly is in the message for the ledger, not for the
            caller.
    """
    try:
        jws = jose.read(token, typ=frozenset({TYPE}), max_bytes=MAX_BYTES)
        jose.verify(jws, _key(keys, jws.header.kid))
        decision = _claims(jws.claims)
    except DecisionError:
        raise
    except FormatError as error:
        raise DecisionError("decision does not verify") from error
    if decision.iss != issuer or decision.aud != kas_id:
        raise DecisionError("decision is from another PDP or for another KAS")
    if now >= decision.exp or max(decision.iat, decision.nbf) > now + SKEW_SECONDS:
        raise DecisionError("decision has expired or is not yet valid")
    return decision


def require_match(
    decision: Decision,
    *,
    caller: Caller,
    tenant: str,
    act: str,
    key_digest: bytes,
    objects: Sequence[RequestedObject],
) -> dict[str, DecidedObject]:
    """Hold a verified decision against a request; returns what it says of each object asked.

    The decision may cover more objects than are asked: a second request with another subset has
    another digest, so the decision is then already spent.

    Raises:
        DecisionMismatchError: Any claim differs from the request.
    """
    bound_to = decision.cnf.jkt if decision.cnf else ""
    stated: dict[str, tuple[str, str]] = {
        "sub": (decision.sub, caller.subject),
        "sub_iss": (decision.sub_iss, caller.issuer),
        "sub_tenant": (decision.sub_tenant, caller.tenant),
        "cnf": (bound_to, caller.jkt),
        "tenant": (decision.tenant, tenant),
        "act": (decision.act, act),
        "key_sha256": (decision.key_sha256, b64url(key_digest)),
    }
    for claim, (said, asked) in stated.items():
        if said != asked:
            raise DecisionMismatchError(claim)
    by_id = {decided.id: decided for decided in decision.objs}
    return {asked.id: _match(by_id.get(asked.id), asked) for asked in objects}


def _key(keys: Mapping[str, jose.VerifyingKey], kid: str | None) -> jose.VerifyingKey:
    if kid is None or (key := keys.get(kid)) is None:
        raise DecisionError("decision is signed by an unknown key")
    return key


def _match(decided: DecidedObject | None, asked: RequestedObject) -> DecidedObject:
    if decided is None:
        raise DecisionMismatchError("objs.id")
    new_policy = asked.new_policy_sha256
    if decided.policy_sha256 != b64url(asked.policy_sha256):
        raise DecisionMismatchError("objs.policy_sha256")
    if decided.keys_sha256 != b64url(asked.keys_sha256):
        raise DecisionMismatchError("objs.keys_sha256")
    if decided.new_policy_sha256 != (None if new_policy is None else b64url(new_policy)):
        raise DecisionMismatchError("objs.new_policy_sha256")
    return decided


def _claims(claims: dict[str, Json]) -> Decision:
    try:
        return convert(claims, Decision)
    except DecisionError:
        raise
    except FormatError as error:
        raise DecisionError("decision has a claim missing, unknown or malformed") from error

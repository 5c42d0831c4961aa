"""Receipts: what proves that a release was recorded, and that the ledger only ever grew.

A receipt counts when it verifies under the pinned key, when its record is of this very request, and
when the log extends the newest head that was seen under that key. The newest head is kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from envelock.errors import ReceiptError
from envelock.profile import State
from envelock_formats.canonical import Json
from envelock_formats.framing import b64, from_b64
from envelock_formats.request import Caller, RequestedObject, request_digest, seal_digest
from envelock_ledger.errors import LedgerError
from envelock_ledger.note import VerifierKey
from envelock_ledger.proof import Receipt, VerifiedRecord

HEADS = "heads"


class _Row(msgspec.Struct, frozen=True):
    id: str
    kid: str
    pol: str


class _Release(msgspec.Struct, frozen=True):
    """What of a `release` or `issue` record is compared with the request."""

    typ: str
    tn: str
    home: str
    kas: str
    rh: str
    objs: tuple[_Row, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """The request that a receipt must be of."""

    act: str
    key_digest: bytes
    objects: Sequence[RequestedObject]
    jkt: str  # empty for an unbound token


class Witness:
    """Verifies receipts under one pinned key, and keeps the newest head seen."""

    def __init__(self, ledger_key: str, state: State) -> None:
        try:
            self._key = VerifierKey.parse(ledger_key)
        except LedgerError as error:
            raise ReceiptError(f"pinned ledger key: {error}", code="ledger_key") from error
        self._name = ledger_key
        self._state = state

    def newest(self) -> "Head | None":
        """The newest head that was seen; ask for the proof from its size, then hold on to it."""
        return _head(self._state.read(), self._name)

    def verify(self, text: str | None, since: "Head | None") -> VerifiedRecord:
        """Verify a receipt's proofs, and that the log extends *since*.

        Args:
            text: The receipt.
            since: What `newest` was when the request was sent.

        Raises:
            ReceiptError: There is no receipt, or something does not hold.
        """
        if text is None:
            raise ReceiptError(
                "the KAS gave no receipt", hint="do not use what was opened; tell the operator"
            )
        try:
            verified = Receipt.parse(text).verify(self._key)
            if since is not None:
                verified.check_extends(since.size, since.root)
        except LedgerError as error:
            raise ReceiptError(
                f"receipt: {error}",
                hint="the ledger contradicts itself or what was seen before; tell an auditor",
            ) from error
        self._keep(since, Head(verified.checkpoint.size, verified.checkpoint.root))
        return verified

    def require_release(
        self, text: str | None, asked: Asked, released: set[str], since: "Head | None"
    ) -> VerifiedRecord:
        """Verify that a receipt records this release.

        Args:
            text: The receipt.
            asked: The request.
            released: Ids of the objects that were released.
            since: What `newest` was when the request was sent.

        Raises:
            ReceiptError: It is of another request, or does not list what was released.
        """
        verified = self.verify(text, since)
        record = _record(verified, "release")
        caller = _caller(verified, record, asked.jkt)
        digest = request_digest(
            kas_id=record.kas,
            owner=record.tn,
            caller=caller,
            act=asked.act,
            key_digest=asked.key_digest,
            objects=asked.objects,
        )
        policies = {item.id: item.policy_sha256.hex() for item in asked.objects}
        listed = {row.id for row in record.objs if policies.get(row.id) == row.pol}
        if record.rh != digest.hex() or listed != released:
            raise ReceiptError("receipt is of another request")
        return verified

    def require_issue(
        self,
        text: str | None,
        *,
        digest_of: Callable[[str, Caller, str], bytes],
        jkt: str,
        ids: set[str],
        policy: bytes,
        since: "Head | None",
    ) -> VerifiedRecord:
        """Verify that a receipt records the issue of data keys.

        Args:
            text: The receipt.
            digest_of: Request digest from KAS id, caller and scope, as `seal_digest` makes it.
            jkt: Thumbprint that the token is bound to, or empty.
            ids: Object ids that were issued.
            policy: `policy_sha256` of their policy.
            since: What `newest` was when the request was sent.

        Raises:
            ReceiptError: It is of another request, or lists other keys.
        """
        verified = self.verify(text, since)
        record = _record(verified, "issue")
        scope = str(verified.fields.get("scope"))
        digest = digest_of(record.kas, _caller(verified, record, jkt), scope)
        listed = {row.id for row in record.objs if row.pol == policy.hex()}
        if record.rh != digest.hex() or listed != ids:
            raise ReceiptError("receipt is of another request")
        return verified

    def require_key(self, text: str, kid: str, der: bytes) -> None:
        """Verify that a receipt records the public key *der* under *kid*.

        Raises:
            ReceiptError: The record does not introduce that key.
        """
        verified = self.verify(text, None)
        if verified.fields.get("typ") != "key.lifecycle" or not _introduces(verified, kid, der):
            raise ReceiptError(f"receipt does not introduce the key {kid}")

    def _keep(self, since: "Head | None", head: "Head") -> None:
        """Keep *head* when it was proven to extend the one that is kept now."""
        with self._state.changing() as values:
            kept = _head(values, self._name)
            heads = values.setdefault(HEADS, {})
            if kept == since and isinstance(heads, dict):
                heads[self._name] = [head.size, b64(head.root)]


class Head(NamedTuple):
    """The size and root of a ledger at some time."""

    size: int
    root: bytes


def _head(values: dict[str, Json], name: str) -> Head | None:
    heads = values.get(HEADS)
    match heads.get(name) if isinstance(heads, dict) else None:
        case [int(size), str(root)]:
            return Head(size, from_b64(root))
        case _:
            return None


def seal_digest_of(
    *, key_digest: bytes, count: int, nonce: bytes
) -> Callable[[str, Caller, str], bytes]:
    """`seal_digest` with everything that the client knows filled in."""

    def digest_of(kas_id: str, caller: Caller, scope: str) -> bytes:
        return seal_digest(
            kas_id=kas_id,
            owner=caller.tenant,
            caller=caller,
            key_digest=key_digest,
            scope=scope,
            count=count,
            nonce=nonce,
        )

    return digest_of


def _record(verified: VerifiedRecord, typ: str) -> _Release:
    try:
        record = msgspec.convert(verified.fields, _Release)
    except msgspec.ValidationError as error:
        raise ReceiptError("receipt is of a record of another kind") from error
    if record.typ != typ:
        raise ReceiptError(f"receipt is of a record of type {record.typ}, not {typ}")
    return record


def _caller(verified: VerifiedRecord, record: _Release, jkt: str) -> Caller:
    """The caller that the record commits to, opened by the receipt."""
    match verified.openings.get("sub"):
        case [str(issuer), str(subject)]:
            return Caller(issuer, subject, record.home, jkt)
        case _:
            raise ReceiptError("receipt does not open the subject that it records")


def _introduces(verified: VerifiedRecord, kid: str, der: bytes) -> bool:
    versions = verified.fields.get("keys")
    for version in versions if isinstance(versions, list) else []:
        match version:
            case {"path": str(path), "version": int(number), "keys": list(keys)}:
                public = {key.get("public") for key in keys if isinstance(key, dict)}
                if f"{path}:v{number}" == kid and b64(der) in public:
                    return True
    return False

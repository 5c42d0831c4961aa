"""Receipts: what proves that a release was recorded, and that the ledger only ever grew.

A receipt counts when it verifies under the pinned key, when its record is of this very request, and
when the log extends the newest head that was seen under that key. The newest head is kept.

The receipt of a published key carries no proof of growth, since its endpoint takes no size: there a
log that is smaller than the newest head, or as large with another root, is refused, and a larger
one is not kept as a head.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from envelock.errors import ReceiptError
from envelock.state import Head, Heads
from envelock_formats.errors import FormatError
from envelock_formats.framing import b64
from envelock_formats.keyid import KeyId
from envelock_formats.request import Caller, RequestedObject, request_digest, seal_digest
from envelock_formats.wire import PublishedKey
from envelock_ledger.errors import LedgerError
from envelock_ledger.note import VerifierKey
from envelock_ledger.proof import Receipt, VerifiedRecord

_TELL = "the ledger contradicts itself or what was seen before; tell an auditor"


class _Row(msgspec.Struct, frozen=True):
    id: str
    kid: str
    pol: str


class _Release(msgspec.Struct, frozen=True):
    """What of a `release`, `issue` or `rebind` record is compared with the request."""

    typ: str
    tn: str
    home: str
    kas: str
    rh: str
    objs: tuple[_Row, ...]
    new: tuple[_Row, ...] = ()  # of a `rebind`


@dataclass(frozen=True, slots=True)
class Asked:
    """The request that a receipt must be of."""

    act: str
    key_digest: bytes
    objects: Sequence[RequestedObject]
    jkt: str  # empty for an unbound token


class Witness:
    """Verifies receipts under one pinned key, and keeps the newest head seen."""

    def __init__(self, ledger_key: str, heads: Heads) -> None:
        try:
            self._key = VerifierKey.parse(ledger_key)
        except LedgerError as error:
            raise ReceiptError(f"pinned ledger key: {error}", code="ledger_key") from error
        self._name = ledger_key
        self._heads = heads

    def newest(self) -> Head | None:
        """The newest head that was seen; ask for the proof from its size, then hold on to it.

        Raises:
            ReceiptError: What was kept cannot be read.
        """
        return self._heads.newest(self._name)

    def verify(self, text: str | None, since: Head | None) -> VerifiedRecord:
        """Verify a receipt's proofs, and that the log extends *since*.

        Args:
            text: The receipt.
            since: What `newest` was when the request was sent.

        Raises:
            ReceiptError: There is no receipt, or something does not hold.
        """
        verified = self._verified(text)
        try:
            if since is not None:
                verified.check_extends(since.size, since.root)
        except LedgerError as error:
            raise ReceiptError(f"receipt: {error}", hint=_TELL) from error
        self._heads.advance(self._name, since, _head(verified))
        return verified

    def require_release(
        self, text: str | None, asked: Asked, released: set[str], since: Head | None
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
        _require_asked(verified, _record(verified, "release"), asked, released)
        return verified

    def require_rebind(
        self, text: str | None, asked: Asked, successor: str, since: Head | None
    ) -> VerifiedRecord:
        """Verify that a receipt records that one object got another policy.

        Args:
            text: The receipt.
            asked: The request; its one object names the new policy.
            successor: Id of the object under the new policy.
            since: What `newest` was when the request was sent.

        Raises:
            ReceiptError: It is of another request, or names another object or policy.
        """
        verified = self.verify(text, since)
        record = _record(verified, "rebind")
        _require_asked(verified, record, asked, {item.id for item in asked.objects})
        policies = {(item.new_policy_sha256 or b"").hex() for item in asked.objects}
        if {(row.id, row.pol) for row in record.new} != {(successor, pol) for pol in policies}:
            raise ReceiptError("receipt is of another request")
        return verified

    def require_issue(
        self,
        text: str | None,
        *,
        digest_of: Callable[[str, Caller, str], bytes],
        jkt: str,
        kid: str,
        dataset: str | None,
        ids: set[str],
        policy: bytes,
        since: Head | None,
    ) -> VerifiedRecord:
        """Verify that a receipt records the issue of data keys.

        Args:
            text: The receipt.
            digest_of: Request digest from KAS id, caller and scope, as `seal_digest` makes it.
            jkt: Thumbprint that the token is bound to, or empty.
            kid: Id of the key that wraps them, as the answer names it.
            dataset: The dataset that was asked for, if one was.
            ids: Object ids that were issued.
            policy: `policy_sha256` of their policy.
            since: What `newest` was when the request was sent.

        Raises:
            ReceiptError: It is of another request, or lists other keys.
        """
        verified = self.verify(text, since)
        record = _record(verified, "issue")
        scope = str(verified.fields.get("scope"))
        _require_named(kid, scope, dataset)
        digest = digest_of(record.kas, _caller(verified, record, jkt), scope)
        listed = {row.id for row in record.objs if row.pol == policy.hex() and row.kid == kid}
        if record.rh != digest.hex() or listed != ids:
            raise ReceiptError("receipt is of another request")
        return verified

    def require_key(
        self, published: PublishedKey, der: bytes, dataset: str | None, since: Head | None
    ) -> None:
        """Verify that the receipt of a published key records it.

        Not checked: that the path is of the caller's tenant, which only the KAS knows.

        Args:
            published: The key, as the KAS answered.
            der: The public key itself.
            dataset: The dataset that was asked for, if one was.
            since: What `newest` was when the request was sent.

        Raises:
            ReceiptError: The record does not introduce that key, its id, path and dataset do not
                fit together, or the log is not one that *since* could have grown into.
        """
        verified = self._verified(published.receipt)
        _require_named(published.kid, published.path, dataset)
        kind = verified.fields.get("typ")
        if kind != "key.lifecycle" or not _introduces(verified, published.kid, der):
            raise ReceiptError(f"receipt does not introduce the key {published.kid}")
        head = _head(verified)
        if since is not None and (head.size < since.size or _forked(head, since)):
            raise ReceiptError(
                f"receipt: the ledger has {head.size} records, and {since.size} were seen",
                hint=_TELL,
            )
        if since is None:
            self._heads.advance(self._name, None, head)

    def _verified(self, text: str | None) -> VerifiedRecord:
        """Verify a receipt's proofs under the pinned key."""
        if text is None:
            raise ReceiptError(
                "the KAS gave no receipt", hint="do not use what was opened; tell the operator"
            )
        try:
            return Receipt.parse(text).verify(self._key)
        except LedgerError as error:
            raise ReceiptError(f"receipt: {error}", hint=_TELL) from error


def _head(verified: VerifiedRecord) -> Head:
    return Head(verified.checkpoint.size, verified.checkpoint.root)


def _forked(head: Head, since: Head) -> bool:
    return head.size == since.size and head.root != since.root


def _require_named(kid: str, path: str, dataset: str | None) -> None:
    """A key id is of its path, and the path of the dataset that was asked for.

    Raises:
        ReceiptError: They do not fit together.
    """
    try:
        named = KeyId.parse(kid).path.text
    except FormatError as error:
        raise ReceiptError(f"receipt: {error}") from error
    if named != path:
        raise ReceiptError(f"the KAS names key {kid[:200]!r} for path {path[:200]!r}")
    if dataset and dataset not in path.split(":"):
        raise ReceiptError(f"the KAS names key {kid[:200]!r} for dataset {dataset!r}")


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


def _require_asked(
    verified: VerifiedRecord, record: _Release, asked: Asked, listed: set[str]
) -> None:
    """The record is of the request *asked*, and lists those of its objects.

    Raises:
        ReceiptError: It is of another request, or lists others.
    """
    digest = request_digest(
        kas_id=record.kas,
        owner=record.tn,
        caller=_caller(verified, record, asked.jkt),
        act=asked.act,
        key_digest=asked.key_digest,
        objects=asked.objects,
    )
    policies = {item.id: item.policy_sha256.hex() for item in asked.objects}
    found = {row.id for row in record.objs if policies.get(row.id) == row.pol}
    if record.rh != digest.hex() or found != listed:
        raise ReceiptError("receipt is of another request")


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

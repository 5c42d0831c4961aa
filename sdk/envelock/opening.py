"""Open a sealed file: obtain its shares from the key access servers it names, and join them.

Only servers on the allowlist are asked: the one of the profile, by the address that it says files
name it by, and those that the profile lists. Everything else in the file is a claim until the root
signature verifies under the joined key.

A receipt is required from the KAS of the profile, whose ledger's key is pinned. The servers that
the profile lists beside it have ledgers of their own, or none: nothing they say of one is verified,
so no receipt of theirs is passed on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec

from envelock.addresses import origin, private_origin
from envelock.errors import (
    ConfigError,
    DeniedError,
    KasNotAllowedError,
    TamperedError,
    UnavailableError,
    sealed_file_error,
)
from envelock.exchange import Steps
from envelock.reader import SealedFile
from envelock.receipts import Asked, Witness
from envelock.session import Session, fresh_key
from envelock_formats.errors import FormatError
from envelock_formats.framing import from_b64
from envelock_formats.online import OnlineWrap, is_online
from envelock_formats.request import (
    RequestedObject,
    key_sha256,
    policy_sha256,
    spki_from_pem,
)
from envelock_formats.tdf.keyaccess import KeyAccess, keys_sha256, object_id
from envelock_formats.wire import (
    KeyAccessEntry,
    KeyResult,
    ObjectEntry,
    PolicyEntry,
    RewrapBody,
    receipt_of,
)
from envelock_formats.wrap import WRAPPED, ec_from_pem, open_answer, public_pem

_POLICY_ID = "policy"
_FORBIDDEN = "desc = forbidden"


@dataclass(frozen=True, slots=True)
class Unlocked:
    """The data key that the shares of a file join to, and the verified receipt of their release."""

    dek: bytes = field(repr=False)
    receipt: str | None  # None where no receipt was required


@dataclass(frozen=True, slots=True)
class _Group:
    """The key access objects of a file at one server, by their positions in the manifest."""

    url: str  # where the server is reached
    keys: Mapping[int, KeyAccess]


def unlock(session: Session, sealed: SealedFile) -> Steps[Unlocked]:
    """Obtain the data key of *sealed*.

    Raises:
        KasNotAllowedError: The file names no server that may be asked.
        DeniedError: A share that is needed was refused.
        TamperedError: Shares do not fit together, or a server found the file altered.
        ReceiptError: The profile's KAS gave no receipt of this release, or one that does not hold.
    """
    shares: dict[int, bytes] = {}
    receipt: str | None = None
    refusal: Exception | None = None
    for group in (yield from _groups(session, sealed)):
        try:
            found, text = yield from _obtain(session, sealed, group)
        except (DeniedError, TamperedError, UnavailableError) as error:
            refusal = error  # another server may hold the same split
            continue
        shares |= found
        receipt = receipt or text
    if refusal is not None and not _complete(sealed.key_access, shares):
        raise refusal
    return Unlocked(sealed.join(shares), receipt)


def ledger_id(keys: Sequence[KeyAccess]) -> str:
    """The id under which the ledger knows an object with these key access objects.

    Raises:
        FormatError: A key access object is malformed.
    """
    for key in keys:
        wrapped = from_b64(key.wrappedKey)
        if key.type == WRAPPED and is_online(wrapped):
            return OnlineWrap.parse(wrapped).id
    return object_id(keys)


def _groups(session: Session, sealed: SealedFile) -> Steps[list[_Group]]:
    configuration = yield from session.configuration()
    ours = configuration.envelock
    allowed = {session.url: session.url}
    if ours is not None:
        allowed[origin(ours.url)] = session.url
    allowed |= {private_origin(url): private_origin(url) for url in session.profile.values.kas}
    groups: dict[str, dict[int, KeyAccess]] = {}
    foreign: list[str] = []
    for position, key in enumerate(sealed.key_access):
        named = _origin_of(key)
        if named in allowed:
            groups.setdefault(allowed[named], {})[position] = key
        else:
            foreign.append(key.url)
    if not groups:
        raise KasNotAllowedError(
            f"the file names key access server {foreign[0][:200]!r}, which is not allowed",
            hint="if you trust it, add it to `kas` in your profile",
        )
    return [_Group(url, keys) for url, keys in groups.items()]


def _origin_of(key: KeyAccess) -> str | None:
    """The origin that a key access object names; None when it is no plain address."""
    try:
        return origin(key.url)
    except ConfigError:
        return None


def _obtain(
    session: Session, sealed: SealedFile, group: _Group
) -> Steps[tuple[dict[int, bytes], str | None]]:
    """One rewrap for all shares at one server; verifies the receipt before anything is used."""
    key = fresh_key()
    witness = yield from _witness(session, group)
    since = witness.newest() if witness is not None else None
    body = RewrapBody(
        clientPublicKey=public_pem(key.public_key()),
        requests=(_entry(sealed, group),),
        seen=since.size if since is not None else None,
    )
    done = yield from session.rewrap(body, group.url)
    results = {
        result.keyAccessObjectId: result
        for response in done.answer.responses
        for result in response.results
    }
    named = {f"kao-{position}": position for position in group.keys}
    permitted = {name: found for name, found in results.items() if found.status == "permit"}
    if not permitted or not permitted.keys() <= named.keys():
        raise _refused(list(results.values()), done.request_id)
    receipt = None
    if witness is not None:
        receipt = receipt_of(done.answer)
        asked = _asked(sealed, group, body.clientPublicKey, done.jkt)
        witness.require_release(receipt, asked, {item.id for item in asked.objects}, since)
    shares = _open(permitted, named, done.answer.sessionPublicKey, key)
    return shares, receipt


def _witness(session: Session, group: _Group) -> Steps[Witness | None]:
    """Who verifies the receipt of *group*; None for another server than the profile's own."""
    if group.url != session.url:
        return None
    return session.witness((yield from session.configuration()))


def _entry(sealed: SealedFile, group: _Group) -> ObjectEntry:
    entries = tuple(KeyAccessEntry(f"kao-{n}", key) for n, key in group.keys.items())
    return ObjectEntry(entries, PolicyEntry(_POLICY_ID, sealed.policy_text))


def _asked(sealed: SealedFile, group: _Group, pem: str, jkt: str) -> Asked:
    keys = tuple(group.keys.values())
    try:
        requested = RequestedObject(
            ledger_id(keys), policy_sha256(sealed.policy_text), keys_sha256(keys)
        )
    except FormatError as error:
        raise sealed_file_error(error) from error
    return Asked("open", key_sha256(spki_from_pem(pem)), (requested,), jkt)


def _open(
    permitted: Mapping[str, KeyResult],
    named: Mapping[str, int],
    session_pem: str | None,
    key: ec.EllipticCurvePrivateKey,
) -> dict[int, bytes]:
    try:
        session_key = ec_from_pem(session_pem or "")
        return {
            named[name]: open_answer(from_b64(result.kasWrappedKey or ""), key, session_key)
            for name, result in permitted.items()
        }
    except FormatError as error:
        raise TamperedError("a key share from the server does not open") from error


def _refused(results: Sequence[KeyResult], request_id: str | None) -> Exception:
    told = next((result.error for result in results if result.error), "")
    if _FORBIDDEN in told:
        word = told.rpartition("(")[2].rstrip(")") if told.endswith(")") else "denied"
        return DeniedError(
            "the policy of the file does not permit it", code=word, request_id=request_id
        )
    return TamperedError(
        "the server found the file altered, or its key is not the server's",
        hint="fetch the file anew from its source",
        request_id=request_id,
    )


def _complete(keys: Sequence[KeyAccess], shares: Mapping[int, bytes]) -> bool:
    return {keys[position].split for position in shares} == {key.split for key in keys}

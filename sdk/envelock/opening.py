"""Open a sealed file: obtain its shares from the key access servers it names, and join them.

Only servers on the allowlist are asked: the one of the profile, by the address that it says files
name it by; those of the profile's peers likewise, each as whoever the peer is; and those that the
profile lists by address. Everything else in the file is a claim until the root signature verifies
under the joined key. The profile's own server is asked first, and no server whose shares others
have given already.

A receipt is required from every KAS whose ledger's key is pinned: the profile's own, and those of
its peers. The servers that the profile lists by address have ledgers of their own, or none: nothing
they say of one is verified, so no receipt of theirs is passed on.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec

from envelock.addresses import origin, private_origin
from envelock.errors import (
    ConfigError,
    DeniedError,
    EnvelockError,
    KasNotAllowedError,
    NotAuthenticatedError,
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
from envelock_formats.tdf.keyaccess import (
    KeyAccess,
    binding_holds,
    keys_sha256,
    object_id,
)
from envelock_formats.tdf.metadata import open_metadata
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
_NAMED = 5  # servers in one message
_FORBIDDEN = "desc = forbidden"


@dataclass(frozen=True, slots=True)
class Unlocked:
    """The data key that the shares of a file join to, and the verified receipts of their release.

    One receipt for each ledger that is pinned, the profile's own first.
    """

    dek: bytes = field(repr=False)
    receipts: tuple[str, ...]
    metadata: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server is reached, and as whom."""

    session: Session
    url: str


@dataclass(frozen=True, slots=True)
class Group:
    """The key access objects of a file at one server, by their positions in the manifest."""

    server: Server
    keys: Mapping[int, KeyAccess]

    @property
    def splits(self) -> set[str]:
        """The splits that the server has a share of."""
        return {key.split for key in self.keys.values()}


def unlock(session: Session, sealed: SealedFile) -> Steps[Unlocked]:
    """Obtain the data key of *sealed*.

    Raises:
        KasNotAllowedError: A share that is needed is at no server that may be asked; none was.
        DeniedError, NotAuthenticatedError: A share that is needed was refused.
        UnavailableError: A share that is needed could not be had now.
        TamperedError: Shares do not fit together, or a server found the file altered.
        ReceiptError: A KAS gave no receipt of this release, or one that does not hold.
    """
    shares: dict[int, bytes] = {}
    receipts: list[str] = []
    failures: list[tuple[Group, EnvelockError]] = []
    groups = yield from groups_of(session, sealed)
    for group in groups:
        if group.splits <= _obtained(sealed, shares):
            continue  # an alternative has given them: nobody releases a key in vain
        try:
            found, receipt = yield from _obtain(sealed, group)
        except (DeniedError, NotAuthenticatedError, TamperedError, UnavailableError) as error:
            several = len({key.url for key in sealed.key_access}) > 1
            failures.append((group, error.at(group.server.url) if several else error))
            continue
        shares |= found
        receipts += [] if receipt is None else [receipt]
    missing = _splits(sealed) - _obtained(sealed, shares)
    if missing:
        raise _failure(missing, failures)
    return Unlocked(sealed.join(shares), tuple(receipts), metadata_of(sealed, shares))


def metadata_of(sealed: SealedFile, shares: Mapping[int, bytes]) -> bytes | None:
    """The encrypted metadata beside the shares that were obtained; None where there is none.

    Args:
        sealed: The file.
        shares: By position in its key access objects.

    Raises:
        TamperedError: It does not open, or differs from share to share.
    """
    sealed_texts = {at: sealed.key_access[at].encryptedMetadata for at in shares}
    try:
        found = {open_metadata(shares[at], text) for at, text in sealed_texts.items() if text}
    except FormatError as error:
        raise sealed_file_error(error) from error
    if len(found) > 1:
        raise TamperedError("tampered: key access objects hold different metadata")
    return next(iter(found), None)


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


def groups_of(session: Session, sealed: SealedFile) -> Steps[list[Group]]:
    """The servers to ask for shares of *sealed*, the profile's own first.

    Raises:
        KasNotAllowedError: A split has no share at a server that may be asked.
        UnavailableError: A server did not say what files name it by, and one is not known without.
    """
    allowed, silent = yield from _allowed(session, sealed)
    found: dict[Server, dict[int, KeyAccess]] = {}
    for position, key in enumerate(sealed.key_access):
        if (server := allowed.get(_origin_of(key) or "")) is not None:
            found.setdefault(server, {})[position] = key
    groups = [Group(server, keys) for server, keys in found.items()]
    reached = {split for group in groups for split in group.splits}
    for split in (key.split for key in sealed.key_access):
        if split not in reached:
            raise silent or _foreign([key.url for key in sealed.key_access if key.split == split])
    return sorted(groups, key=lambda group: group.server.url != session.url)


def _allowed(
    session: Session, sealed: SealedFile
) -> Steps[tuple[dict[str, Server], UnavailableError | None]]:
    """The servers that may be asked, by the origins that files name them by.

    Peers are asked for theirs only when the file names a server that is not known without.

    SECURITY: no server can take the place of one that comes before it: first the profile's own,
    then addresses that the profile and its peers state, then what peers say of themselves, last the
    addresses of servers that the profile's own says it has taken over. Those lead to nobody else:
    no request goes to an address because a server names it.

    Returns:
        The servers, and the error of one that did not say what files name it by.
    """
    silent: UnavailableError | None = None
    own, aliases = Server(session, session.url), set[str]()
    found = {session.url: own}
    try:
        found[(yield from _announced(session))] = own
        aliases = yield from _aliases(session)
    except UnavailableError as error:
        silent = error
    for url in map(private_origin, session.profile.values.kas):
        found.setdefault(url, Server(session, url))
    for peer in session.peers:
        found.setdefault(peer.url, Server(peer, peer.url))
    for peer in session.peers:
        if all(_origin_of(key) in found for key in sealed.key_access):
            break
        try:
            found.setdefault((yield from _announced(peer)), Server(peer, peer.url))
        except UnavailableError as error:
            silent = silent or error.at(peer.url)
    return dict.fromkeys(aliases, own) | found, silent


def _announced(session: Session) -> Steps[str]:
    """The origin that files name a server by, as it says; its own where it says none."""
    ours = (yield from session.configuration()).envelock
    return origin(ours.url) if ours is not None else session.url


def _aliases(session: Session) -> Steps[set[str]]:
    """The origins of servers that the session's own has taken over, as it says."""
    ours = (yield from session.configuration()).envelock
    found: set[str] = set()
    for url in ours.aliases if ours is not None else ():
        with suppress(ConfigError):  # not an address that a file of ours could name
            found.add(origin(url))
    return found


def _foreign(urls: Sequence[str]) -> KasNotAllowedError:
    """The error for a split all of whose servers are foreign."""
    named = " or ".join(repr(url[:200]) for url in urls[:_NAMED])
    return KasNotAllowedError(
        f"the file names key access server {named}, which is not allowed",
        hint="if you trust it: --peer PROFILE, or add it to `peers` or `kas` in your profile",
    )


def _origin_of(key: KeyAccess) -> str | None:
    """The origin that a key access object names; None when it is no plain address."""
    try:
        return origin(key.url)
    except ConfigError:
        return None


def _obtain(sealed: SealedFile, group: Group) -> Steps[tuple[dict[int, bytes], str | None]]:
    """One rewrap for all shares at one server; verifies the receipt before anything is used."""
    key = fresh_key()
    session = group.server.session
    witness = yield from witness_of(group.server)
    since = witness.newest() if witness is not None else None
    body = RewrapBody(
        clientPublicKey=public_pem(key.public_key()),
        requests=(_entry(sealed, group),),
        seen=since.size if since is not None else None,
    )
    done = yield from session.rewrap(body, group.server.url)
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
    _require_bound(sealed, shares)
    return shares, receipt


def _require_bound(sealed: SealedFile, shares: Mapping[int, bytes]) -> None:
    """Each share is the one that its policy binding was made with.

    The root signature would tell too, but not which of several servers gave a wrong one.
    """
    try:
        for position, share in shares.items():
            stated = sealed.key_access[position].policyBinding
            if not binding_holds(share, sealed.policy_text, stated):
                raise TamperedError(
                    "a key share from the server does not fit the policy of the file"
                )
    except FormatError as error:
        raise sealed_file_error(error) from error


def witness_of(server: Server) -> Steps[Witness | None]:
    """Who verifies the receipt of a server; None for one that is listed by its address alone."""
    session = server.session
    if server.url != session.url:
        return None
    return session.witness((yield from session.configuration()))


def _entry(sealed: SealedFile, group: Group) -> ObjectEntry:
    entries = tuple(KeyAccessEntry(f"kao-{n}", key) for n, key in group.keys.items())
    return ObjectEntry(entries, PolicyEntry(_POLICY_ID, sealed.policy_text))


def _asked(sealed: SealedFile, group: Group, pem: str, jkt: str) -> Asked:
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


def _splits(sealed: SealedFile) -> set[str]:
    return {key.split for key in sealed.key_access}


def _obtained(sealed: SealedFile, shares: Mapping[int, bytes]) -> set[str]:
    return {sealed.key_access[position].split for position in shares}


def _failure(missing: set[str], failures: Sequence[tuple[Group, EnvelockError]]) -> EnvelockError:
    """What to tell when the shares of *missing* were not obtained.

    A split whose every server refused is told first: trying again will not help. Where one of a
    split's servers did not answer, it will.
    """
    told: list[EnvelockError] = []
    for split in sorted(missing):
        errors = [error for group, error in failures if split in group.splits]
        waiting = [error for error in errors if isinstance(error, UnavailableError)]
        told += (waiting or errors)[:1]
    final = [error for error in told if not isinstance(error, UnavailableError)]
    return (final or told or [TamperedError("tampered: a split has no key share")])[0]

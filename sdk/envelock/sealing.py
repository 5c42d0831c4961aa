"""Seal a file: the policy, a data key, and the key access object that carries it.

Offline the data key is drawn here and wrapped to a public key of the KAS; online the KAS makes and
wraps it, and it comes back sealed to a key of this process. Offline it can also be the sum of
several random shares, each wrapped for another KAS, so that it takes all of them to open the file.
"""

import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from envelock.addresses import origin
from envelock.assertions import Assertion, with_checked_key
from envelock.errors import ConfigError, EnvelockError, UnavailableError
from envelock.exchange import Steps
from envelock.receipts import seal_digest_of
from envelock.session import AttributeValueInfo, Session, fresh_key
from envelock.writer import SealPlan
from envelock_formats.errors import FormatError
from envelock_formats.fqn import AttributeNameError, AttributeValue
from envelock_formats.framing import b64, b64url, from_b64
from envelock_formats.online import OnlineWrap, hpke_info, open_data_key
from envelock_formats.publickey import algorithm_of_key, read_public_key, wrap_share
from envelock_formats.request import key_sha256, policy_sha256, spki_from_pem
from envelock_formats.tdf.keyaccess import SHARE_SIZE, KeyAccess, bind_policy
from envelock_formats.tdf.metadata import MAX_METADATA, seal_metadata
from envelock_formats.tdf.policy import write_policy
from envelock_formats.wire import NONCE_SIZE, PublishedKey, SealAnswer, SealBody, SealedKey
from envelock_formats.wrap import (
    IV_SIZE,
    combine,
    public_pem,
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be sealed, but for its bytes."""

    attributes: tuple[AttributeValue, ...]
    dataset: str | None
    online: bool
    splits: tuple[tuple[Session, ...], ...]  # one share each; its servers are alternatives
    entropy: Callable[[int], bytes] = field(repr=False)
    assertions: tuple[Assertion, ...] = ()
    metadata: bytes | None = field(default=None, repr=False)


def planned(
    session: Session,
    attrs: str | Sequence[str],
    dataset: str | None,
    *,
    online: bool,
    splits: Sequence[Sequence[Session]] | None = None,
    assertions: Sequence[Assertion] = (),
    metadata: str | bytes | None = None,
) -> Steps[SealPlan]:
    """Resolve the names of attributes, and obtain a key for one file that asks for them.

    Args:
        session: Who seals.
        attrs: What the file asks.
        dataset: Which of the tenant's key paths to seal under, at every KAS.
        online: Let the KAS make the key.
        splits: One share of the key for each item, whose KASes are alternatives; None for a key
            that is not split, at the KAS of *session*.
        assertions: What is asserted of the file.
        metadata: What is encrypted beside each share, at most 64 KiB.

    Raises:
        ConfigError: An attribute is unknown, the splits cannot be, or the metadata is too long.
    """
    if splits is not None and (online or not splits or not all(splits)):
        raise ConfigError(
            "a key that is made online is not split" if online else "a split names no server",
            hint="name at least one key access server for each split, and do not seal online",
        )
    said = metadata.encode() if isinstance(metadata, str) else metadata
    if said is not None and len(said) > MAX_METADATA:
        raise ConfigError(f"metadata of {len(said)} bytes, at most {MAX_METADATA}")
    asserted = tuple(map(with_checked_key, assertions))
    values = yield from resolve(session, [attrs] if isinstance(attrs, str) else attrs)
    of_splits = tuple(map(tuple, splits if splits is not None else [[session]]))
    wish = Wish(values, dataset, online, of_splits, os.urandom, asserted, said)
    return (yield from plan(session, wish))


def resolve(session: Session, names: Sequence[str]) -> Steps[tuple[AttributeValue, ...]]:
    """Find the attribute values that people mean.

    `NAMESPACE/NAME=VALUE` and full names are known without a server; `NAME=VALUE` is looked up in
    the tenant's bundle.

    Raises:
        ConfigError: Unknown or ambiguous, with the candidates.
    """
    found: list[AttributeValue] = []
    for name in names:
        value = _stated(name)
        if value is None:
            value = yield from _looked_up(session, name)
        if value not in found:
            found.append(value)
    return tuple(found)


def openable(session: Session, values: Sequence[AttributeValue]) -> Steps[bool]:
    """Whether any rule of the tenant's bundle could open what asks for *values*."""
    known = {
        info.fqn: info.openable
        for attribute in (yield from session.attributes()).attributes
        for info in attribute.values
    }
    return all(known.get(value.fqn, False) for value in values)


def plan(session: Session, wish: Wish) -> Steps[SealPlan]:
    """Obtain a key for one file.

    Raises:
        EnvelockError: The KAS refuses, or does not answer.
    """
    policy = write_policy(str(uuid.UUID(bytes=wish.entropy(16), version=4)), wish.attributes)
    if wish.online:
        return (yield from _plan_online(session, wish, policy))
    return (yield from _plan_offline(wish, policy))


def _plan_offline(wish: Wish, policy: str) -> Steps[SealPlan]:
    """A key that is the sum of one random share for each split.

    Raises:
        ConfigError: One server stands in two places.
    """
    keys: list[KeyAccess] = []
    shares: dict[int, bytes] = {}
    for servers in wish.splits:
        share = shares[len(keys)] = wish.entropy(SHARE_SIZE)
        sid = str(uuid.UUID(bytes=wish.entropy(16), version=4)) if len(wish.splits) > 1 else None
        for server in servers:
            published = yield from _published(server, wish)
            _refuse_again(published.url, keys)
            key = _wrapped(published, share, policy, wish.entropy)
            keys.append(_with_metadata(msgspec.structs.replace(key, sid=sid), share, wish))
    return SealPlan(combine(keys, shares), tuple(keys), policy, assertions=wish.assertions)


def _with_metadata(key: KeyAccess, share: bytes, wish: Wish) -> KeyAccess:
    if wish.metadata is None:
        return key
    sealed = seal_metadata(share, wish.metadata, wish.entropy(IV_SIZE))
    return msgspec.structs.replace(key, encryptedMetadata=sealed)


def _published(server: Session, wish: Wish) -> Steps[PublishedKey]:
    alone = sum(map(len, wish.splits)) == 1
    try:
        return (yield from server.published_key(wish.dataset))
    except EnvelockError as error:
        if alone:
            raise
        raise error.at(server.url) from error


def _refuse_again(url: str, keys: Sequence[KeyAccess]) -> None:
    """A server has one share: with two it would be needed twice, or be its own alternative."""
    if any(origin(key.url) == origin(url) for key in keys):
        raise ConfigError(
            f"key access server {url} stands in two places",
            hint="name each server once; servers of one address cannot be told apart in a file",
        )


def _wrapped(
    published: PublishedKey, share: bytes, policy: str, entropy: Callable[[int], bytes]
) -> KeyAccess:
    """One share, wrapped to a key that a KAS published, as its algorithm wants it.

    Raises:
        UnavailableError: The KAS published no key that shares can be wrapped to.
    """
    try:
        key = read_public_key(published.pem)
        if algorithm_of_key(key) != published.algorithm:
            raise UnavailableError("public key: the server's answer contradicts itself")
        made = wrap_share(share, key, iv=entropy(IV_SIZE))
    except FormatError as error:
        raise UnavailableError("public key: the server's answer is malformed") from error
    return KeyAccess(
        type=made.kind,
        url=published.url,
        kid=published.kid,
        wrappedKey=b64(made.wrapped),
        policyBinding=bind_policy(share, policy),
        ephemeralPublicKey=made.ephemeral_pem,
        schemaVersion="1.0",
    )


def _plan_online(session: Session, wish: Wish, policy: str) -> Steps[SealPlan]:
    ephemeral = fresh_key()
    nonce = wish.entropy(NONCE_SIZE)
    witness = session.witness((yield from session.configuration()))
    since = witness.newest() if witness is not None else None
    body = SealBody(
        clientPublicKey=public_pem(ephemeral.public_key()),
        policy=policy,
        nonce=b64url(nonce),
        dataset=wish.dataset,
        seen=since.size if since is not None else None,
    )
    done = yield from session.data_keys(body)
    answer, issued = done.answer, _only(done.answer)
    digest = answer.digest
    if witness is not None:
        verified = witness.require_issue(
            answer.receipt,
            digest_of=seal_digest_of(
                key_digest=key_sha256(spki_from_pem(body.clientPublicKey)), count=1, nonce=nonce
            ),
            jkt=done.jkt,
            kid=answer.kid,
            dataset=wish.dataset,
            ids={issued.id},
            policy=policy_sha256(policy),
            since=since,
        )
        digest = str(verified.fields["rh"])
    dek = _opened(issued, digest, ephemeral)
    key = KeyAccess(
        type="wrapped",
        url=answer.url,
        kid=answer.kid,
        wrappedKey=issued.wrappedKey,
        policyBinding=bind_policy(dek, policy),
        schemaVersion="1.0",
    )
    key = _with_metadata(key, dek, wish)
    return SealPlan(dek, (key,), policy, assertions=wish.assertions)


def _only(answer: SealAnswer) -> SealedKey:
    if len(answer.keys) != 1:
        raise UnavailableError(f"data keys: one was asked for, and {len(answer.keys)} came")
    return answer.keys[0]


def _opened(issued: SealedKey, digest: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """A data key, whose wrap must be of the object that it names.

    Args:
        issued: The key, as the KAS answered.
        digest: Request digest in hex: of the verified record where there is one.
        key: The ephemeral key of the request.
    """
    try:
        wrapped = from_b64(issued.wrappedKey)
        wrap = OnlineWrap.parse(wrapped)
        info = hpke_info(bytes.fromhex(digest), wrap.object_id, wrapped)
        if wrap.id != issued.id:
            raise UnavailableError("data keys: the answer names another object than its wrap")
        return open_data_key(from_b64(issued.sealed), key, info)
    except (FormatError, ValueError) as error:
        raise UnavailableError("data keys: the server's answer is malformed") from error


def _stated(name: str) -> AttributeValue | None:
    """The value that *name* states in full; None when it leaves the namespace out."""
    try:
        if name.startswith("https://"):
            return AttributeValue.parse_fqn(name)
        if "/" in name.partition("=")[0]:
            return AttributeValue.parse_short(name)
    except AttributeNameError as error:
        raise ConfigError(str(error), hint="write NAMESPACE/NAME=VALUE or NAME=VALUE") from error
    if not all(name.partition("=")):
        raise ConfigError(f"attribute {name!r}", hint="write NAMESPACE/NAME=VALUE or NAME=VALUE")
    return None


def _looked_up(session: Session, name: str) -> Steps[AttributeValue]:
    attributes = (yield from session.attributes()).attributes
    every = [value for attribute in attributes for value in attribute.values]
    fits = [value for value in every if value.short.partition("/")[2] == name.lower()]
    if len(fits) == 1:
        return AttributeValue.parse_fqn(fits[0].fqn)
    if fits:
        raise ConfigError(f"attribute {name!r} is ambiguous", hint=_candidates(fits))
    definition = name.partition("=")[0].lower()
    near = [value for value in every if value.short.partition("/")[2].startswith(f"{definition}=")]
    raise ConfigError(f"attribute {name!r} is unknown", hint=_candidates(near or every))


def _candidates(values: Sequence[AttributeValueInfo]) -> str:
    return "one of: " + ", ".join(value.short for value in values[:10])

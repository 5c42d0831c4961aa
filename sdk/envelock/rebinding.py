"""Give a sealed file another policy: its servers wrap its shares anew, its manifest is replaced.

Nothing is opened here: shares never leave the servers, and payload, segments and root signature
stay as they are. The rest of the file is written beside it before any server is asked, so a full
disk is noticed while the former file still opens.

The new policy keeps the former one's uuid and names, and lists attributes in one order: the same
wish gives the same text. So when a wrap that a KAS made was replaced on record and the file was not
rewritten after all, the same again, from the former file, gives the replacement once more.
"""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import msgspec

from envelock.errors import (
    ConfigError,
    EnvelockError,
    KasNotAllowedError,
    UnavailableError,
    sealed_file_error,
)
from envelock.exchange import Steps
from envelock.files import Progress, Sink, Target, output, read_at
from envelock.opening import Group, groups_of, ledger_id, witness_of
from envelock.reader import SealedFile
from envelock.receipts import Asked
from envelock.sealing import resolve
from envelock.session import Session
from envelock_formats.errors import FormatError
from envelock_formats.framing import b64url, from_b64
from envelock_formats.keyid import KeyId, KeyIdError
from envelock_formats.online import is_online, rebound_id
from envelock_formats.request import RequestedObject, key_sha256, policy_sha256
from envelock_formats.tdf import container
from envelock_formats.tdf.container import read_container
from envelock_formats.tdf.keyaccess import KeyAccess, keys_sha256
from envelock_formats.tdf.manifest import rebind_manifest
from envelock_formats.tdf.policy import write_policy
from envelock_formats.wire import NONCE_SIZE, RebindBody
from envelock_formats.wrap import WRAPPED

_STEP = 1 << 20


@dataclass(frozen=True, slots=True)
class Rebound:
    """What a file asks now, and what proves that it was put on record.

    A file whose key is split has a receipt of each ledger that is pinned, the profile's own first.
    """

    attrs: tuple[str, ...]
    former: tuple[str, ...]
    receipts: tuple[str, ...]
    online: bool  # made by the KAS: copies of the former file open no longer

    @property
    def receipt(self) -> str | None:
        """The first receipt; None where none was required."""
        return self.receipts[0] if self.receipts else None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to become of a file, before any server was asked to do it."""

    policy: str  # base64, the new one
    attrs: tuple[str, ...]
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class Replacement:
    """The key access objects of a file under its new policy, in manifest order."""

    keys: tuple[KeyAccess, ...]
    receipts: tuple[str, ...]


def planned(session: Session, sealed: SealedFile, attrs: str | Sequence[str]) -> Steps[Plan]:
    """Find what a new policy says, and who has to agree to it.

    Raises:
        ConfigError: An attribute is unknown, or the file asks for just these already.
        KasNotAllowedError: A share is at a server that may not be asked.
    """
    values = yield from resolve(session, [attrs] if isinstance(attrs, str) else attrs)
    former = sealed.policy
    if set(values) == set(former.attributes):
        raise ConfigError("the file asks for that already", code="same_policy")
    policy = write_policy(former.uuid, sorted(values, key=lambda value: value.fqn), former.dissem)
    groups = yield from groups_of(session, sealed)
    reached = {position for group in groups for position in group.keys}
    for position, key in enumerate(sealed.key_access):
        if position not in reached:
            raise KasNotAllowedError(
                f"the file names key access server {key.url[:200]!r}, which is not allowed",
                hint="every server with a share must agree: --peer PROFILE, or `peers` or `kas`"
                " in your profile",
            )
    return Plan(policy, tuple(value.fqn for value in values), tuple(groups))


def replaced(
    sealed: SealedFile, plan: Plan, entropy: Callable[[int], bytes] = os.urandom
) -> Steps[Replacement]:
    """Have every server put its shares under the new policy.

    Raises:
        DeniedError, NotAuthenticatedError: A server refuses.
        UnavailableError: A server cannot answer, or its answer is not of this request.
        ReceiptError: A KAS gave no receipt of this, or one that does not hold.
    """
    made: dict[int, KeyAccess] = {}
    receipts: list[str] = []
    for group in plan.groups:
        try:
            found, receipt = yield from _replaced_at(
                sealed, plan, group, b64url(entropy(NONCE_SIZE))
            )
        except EnvelockError as error:
            raise (error.at(group.server.url) if len(plan.groups) > 1 else error) from error
        made |= dict(zip(group.keys, found, strict=True))
        receipts += [] if receipt is None else [receipt]
    return Replacement(tuple(made[position] for position in sorted(made)), tuple(receipts))


def is_made_online(keys: Sequence[KeyAccess]) -> bool:
    """Whether a KAS made and wrapped the key of a file."""
    return any(key.type == WRAPPED and is_online(from_b64(key.wrappedKey)) for key in keys)


class Rewriting:
    """A file that is being written anew beside the former one: first its payload, then the rest."""

    def __init__(self, sealed: SealedFile) -> None:
        source = sealed.source
        self._source = source
        self._place = read_container(
            lambda start, count: read_at(source, start, count), source.size
        )
        self._head = container.payload_header(self._place.payload_size)
        self._sink: Sink | None = None
        self.agreed = False  # the servers have replaced the policy

    def begin(self, sink: Sink, progress: Progress | None) -> None:
        """Copy the payload, sealed as it is."""
        self._sink = sink
        sink.write(self._head)
        size, done = self._place.payload_size, 0
        while done < size:
            start = self._place.payload_offset + done
            piece = read_at(self._source, start, min(_STEP, size - done))
            if not piece:
                raise ConfigError("the file became shorter while it was read")
            sink.write(piece)
            done += len(piece)
            if progress is not None:
                progress(done)

    def finish(self, policy: str, keys: Sequence[KeyAccess]) -> None:
        """Write the manifest with another policy and other wraps, and the end of the container.

        Raises:
            UnavailableError: What the servers answered does not make a manifest.
        """
        self.agreed = True
        try:
            manifest = rebind_manifest(self._place.manifest, policy, keys)
        except FormatError as error:
            raise UnavailableError("rebind: the server's answer is malformed") from error
        tail = container.trailer(
            start=len(self._head),
            size=self._place.payload_size,
            crc=self._place.payload_crc,
            manifest=manifest,
        )
        if self._sink is not None:
            self._sink.write(tail)


@contextmanager
def rewriting(sealed: SealedFile, target: Target, progress: Progress | None) -> Iterator[Rewriting]:
    """Write *sealed* anew into *target*, a path as a whole or not at all.

    Raises:
        EnvelockError: Its policy is replaced on record, and the file could not be written.
        OSError: The file could not be written, and nothing else has happened.
    """
    made = Rewriting(sealed)
    try:
        with output(target, force=True) as sink:
            made.begin(sink, progress)
            yield made
    except OSError as error:
        if not made.agreed:
            raise
        raise EnvelockError(
            f"the policy is replaced on record, but the file could not be written: {error}",
            code="not_rewritten",
            hint="mend the cause, and rebind the former file to the same attributes again",
        ) from error


def target_of(file: PathLike[str] | bytes | bytearray | memoryview) -> Target:
    """Where the file is written anew: in its place, or into memory.

    Raises:
        TypeError: A file object, or a `str`.
        ConfigError: The path is not a regular file.
    """
    if isinstance(file, (bytes, bytearray, memoryview)):
        return io.BytesIO()
    if not isinstance(file, PathLike):
        raise TypeError(f"rebind takes a path or bytes, not {type(file).__name__}")
    if not Path(file).is_file():
        raise ConfigError(f"{Path(file)} is not a file", hint="name the sealed file to rewrite")
    return file


def rebound(sealed: SealedFile, plan: Plan, done: Replacement, target: Target) -> Rebound | bytes:
    """What a rebinding of *sealed* gives: what was done to a path, or the bytes in memory."""
    if isinstance(target, io.BytesIO):
        return target.getvalue()
    former = tuple(value.fqn for value in sealed.policy.attributes)
    return Rebound(plan.attrs, former, done.receipts, is_made_online(sealed.key_access))


def _replaced_at(
    sealed: SealedFile, plan: Plan, group: Group, nonce: str
) -> Steps[tuple[list[KeyAccess], str | None]]:
    """One request for all shares at one server; verifies the receipt before anything is used."""
    session = group.server.session
    witness = yield from witness_of(group.server)
    since = witness.newest() if witness is not None else None
    keys = tuple(group.keys.values())
    asked = _requested(sealed, keys, plan.policy)
    body = RebindBody(
        keyAccess=keys,
        policy=sealed.policy_text,
        newPolicy=plan.policy,
        nonce=nonce,
        seen=since.size if since is not None else None,
    )
    online = is_made_online(keys)
    done = yield from session.rebind(body, group.server.url, again=online)
    made, successor = _taken(keys, done.answer.keyAccess)
    expected = rebound_id(asked.id, policy_sha256(plan.policy)).hex() if online else successor
    if not successor == expected == done.answer.id:
        raise UnavailableError("rebind: the answer is about another object")
    receipt = done.answer.receipt
    if witness is not None:
        request = Asked("rebind", key_sha256(b""), (asked,), done.jkt)
        witness.require_rebind(receipt, request, successor, since)
        return made, receipt
    return made, None


def _requested(sealed: SealedFile, keys: Sequence[KeyAccess], policy: str) -> RequestedObject:
    try:
        return RequestedObject(
            ledger_id(keys),
            policy_sha256(sealed.policy_text),
            keys_sha256(keys),
            policy_sha256(policy),
        )
    except FormatError as error:
        raise sealed_file_error(error) from error


def _taken(former: Sequence[KeyAccess], made: Sequence[KeyAccess]) -> tuple[list[KeyAccess], str]:
    """What of the answer goes into the file, and the object id that it makes.

    Of each only what wraps and binds is taken; where its server is, and which split it is of, stays
    as the file has it.

    Raises:
        UnavailableError: Another number of keys, a key of another path, or one that is malformed.
    """
    try:
        if len(made) != len(former) or not all(map(_same_path, former, made)):
            raise UnavailableError("rebind: the answer is about other keys")
        taken = [
            msgspec.structs.replace(
                key,
                type=new.type,
                kid=new.kid,
                wrappedKey=new.wrappedKey,
                policyBinding=new.policyBinding,
                ephemeralPublicKey=new.ephemeralPublicKey,
            )
            for key, new in zip(former, made, strict=True)
        ]
        return taken, ledger_id(taken)
    except FormatError as error:
        raise UnavailableError("rebind: the server's answer is malformed") from error


def _same_path(former: KeyAccess, made: KeyAccess) -> bool:
    """Whether a key access object stays under its path; where another KAS named it, any will do."""
    path = KeyId.parse(made.kid or "").path
    try:
        return KeyId.parse(former.kid or "").path == path
    except KeyIdError:
        return True

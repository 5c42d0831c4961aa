"""The sister of release: data keys made and wrapped online.

The same steps and numbers as `release`. What differs: step 7 makes and wraps instead of unwrapping,
under a symmetric key that never leaves the custody, bound to tenant, key version, object and
policy; and each repeat of the request makes new keys, so that nothing is answered again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec

from envelock_formats.errors import FormatError
from envelock_formats.framing import b64, digest, from_b64url
from envelock_formats.keyid import KeyIdError, KeyPath
from envelock_formats.online import (
    OBJECT_ID_SIZE,
    ONLINE_AES_GCM,
    OnlineWrap,
    hpke_info,
    online_aad,
    seal_data_key,
)
from envelock_formats.request import (
    RequestedObject,
    client_key,
    key_sha256,
    policy_sha256,
    seal_digest,
    spki,
)
from envelock_formats.tdf.keyaccess import SHARE_SIZE
from envelock_formats.tdf.policy import Policy, parse_policy
from envelock_formats.wire import (
    NONCE_SIZE,
    SealAnswer,
    SealBody,
    SealedKey,
    WireError,
    read_seal,
)
from envelock_formats.wrap import refuse_other_curves
from envelock_kas.context import Context
from envelock_kas.custody import AES, Custody
from envelock_kas.decisions import Decisions
from envelock_kas.errors import CustodyError
from envelock_kas.gate import Gate
from envelock_kas.keys.registry import KeyVersion, Standing
from envelock_kas.naming import DEFAULT_ONLINE_DATASET, Naming
from envelock_kas.pdp import QuestionObject
from envelock_kas.recorder import Draft, MovedError, Recorder, RefusedObject, bound_to, row
from envelock_kas.records import Origin
from envelock_service.callers import Authenticated
from envelock_service.problem import Problem


@dataclass(frozen=True, slots=True)
class Wish:
    """A request for data keys, read."""

    body: SealBody
    policy: Policy
    client: ec.EllipticCurvePublicKey
    client_der: bytes
    nonce: bytes


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """One data key that was just made and wrapped."""

    wrap: OnlineWrap
    dek: bytes = field(repr=False)


class Issue:
    """Issues data keys: one call for one request."""

    def __init__(
        self,
        *,
        gate: Gate,
        decisions: Decisions,
        recorder: Recorder,
        naming: Naming,
        custodies: Mapping[str, Custody],
        kas_url: str,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._gate = gate
        self._decisions = decisions
        self._recorder = recorder
        self._naming = naming
        self._custodies = custodies
        self._kas_url = kas_url
        self._entropy = entropy

    async def __call__(
        self, authenticated: Authenticated, token: str, origin: Origin
    ) -> SealAnswer:
        """Make data keys for one policy under one dataset of the caller's tenant.

        Raises:
            Problem: The request is refused, or something that is needed is not there. What had to
                be recorded is on record.
        """
        home = authenticated.token.caller.tenant
        context = Context(authenticated, origin, "seal", home)
        wish = await self._read(context, token)  # 2 to 4
        await self._gate.require_open(context, home, [wish.policy])  # 5
        await self._gate.require_foreign_key(context, wish.client_der)
        path = await self._path(context, wish)
        requested = await self._decide(context, wish, path)  # 6
        standing = await self._gate.require_wraps(context, path, wish.body.count)  # 7
        try:
            issued = [await self._make(standing.version, requested) for _ in range(wish.body.count)]
        except CustodyError as error:
            await self._recorder.report(context, f"custody: {error}")
            raise Problem("hsm_unavailable") from error
        sealed = tuple(self._seal(context, wish, key) for key in issued)  # 9
        receipt = await self._commit(context, wish, standing, issued, requested)  # 10
        return SealAnswer(  # 11
            str(standing.version.id), self._kas_url, (context.digest or b"").hex(), sealed, receipt
        )

    async def _read(self, context: Context, token: str) -> Wish:
        # 4 stands first: a malformed request costs a record too
        self._gate.admit(context.caller, len(token))
        try:
            return _wish(self._gate.read_token(context, token))
        except FormatError as error:
            await self._recorder.refuse(context, f"malformed: {error}")
            raise Problem("malformed_request", str(error)) from error

    async def _path(self, context: Context, wish: Wish) -> KeyPath:
        try:
            return self._naming.path(context.owner, wish.body.dataset or DEFAULT_ONLINE_DATASET)
        except KeyIdError as error:
            await self._recorder.refuse(context, f"malformed: {error}")
            raise Problem("malformed_request", str(error)) from error

    async def _decide(self, context: Context, wish: Wish, path: KeyPath) -> RequestedObject:
        """Step 6, about one object that stands for all keys to be made."""
        key_digest = key_sha256(wish.client_der)
        count = wish.body.count.to_bytes(4, "big")
        scope = digest("envelock/seal/v1", path.text.encode(), count, wish.nonce)
        context.digest = seal_digest(
            kas_id=self._gate.kas_id,
            owner=context.owner,
            caller=context.caller,
            key_digest=key_digest,
            scope=path.text,
            count=wish.body.count,
            nonce=wish.nonce,
        )
        requested = RequestedObject(f"seal:{path}", policy_sha256(wish.body.policy), scope)
        question = [QuestionObject(requested, wish.body.policy)]
        verdicts = await self._decisions.decide(context, key_digest, question, wish.body.decision)
        if (reason := verdicts.refusal(requested.id)) is not None:
            refused = RefusedObject(row(requested.id, str(path), requested.policy_sha256), reason)
            await self._recorder.refuse(context, reason, [refused])
            raise Problem("access_denied")
        return requested

    async def _make(self, version: KeyVersion, requested: RequestedObject) -> IssuedKey:
        material = version.material(AES)
        if material is None:
            raise CustodyError(f"key {version.id} has no {AES}")
        dek, object_id = self._entropy(SHARE_SIZE), self._entropy(OBJECT_ID_SIZE)
        aad = online_aad(version.id.tenant, str(version.id), object_id, requested.policy_sha256)
        rest = await self._custodies[version.custody].wrap(material.handle, dek, aad)
        return IssuedKey(OnlineWrap(ONLINE_AES_GCM, object_id, rest), dek)

    def _seal(self, context: Context, wish: Wish, key: IssuedKey) -> SealedKey:
        wrapped = bytes(key.wrap)
        info = hpke_info(context.digest or b"", key.wrap.object_id, wrapped)
        return SealedKey(key.wrap.id, b64(wrapped), b64(seal_data_key(key.dek, wish.client, info)))

    async def _commit(
        self,
        context: Context,
        wish: Wish,
        standing: Standing,
        issued: list[IssuedKey],
        requested: RequestedObject,
    ) -> str:
        """Step 10. A key that moved meanwhile wraps nothing new: the caller asks again."""
        policy, version = requested.policy_sha256, standing.version
        draft = Draft(
            typ="issue",
            fields={
                "objs": [row(key.wrap.id, str(version.id), policy) for key in issued],
                "scope": version.path,
            },
            bound_to=bound_to(context, [key.wrap.id for key in issued]),
            fences=self._gate.fences(context) | dict(standing.fences),
            seen=wish.body.seen,
            repeatable=False,
        )
        try:
            return (await self._recorder.commit(context, draft)).text()
        except MovedError as moved:
            await self._gate.read_on(context, str(moved))
            await self._recorder.refuse(context, f"moved meanwhile: {moved}")
            raise Problem("policy_stale") from moved


def _wish(body: bytes) -> Wish:
    read = read_seal(body)
    client = client_key(read.clientPublicKey)
    der = spki(client)
    nonce = from_b64url(read.nonce)
    if not isinstance(client, ec.EllipticCurvePublicKey) or len(nonce) != NONCE_SIZE:
        raise WireError("clientPublicKey must be P-256, nonce 16 bytes")
    refuse_other_curves(client)
    return Wish(read, parse_policy(read.policy), client, der, nonce)

"""THE use case: release the shares of sealed objects to a caller whom the policy permits.

Cheap before dear, secret-free before secret. The steps, whose numbers stand in the code:

 1 limits on bytes, depth and time (the server's, before this module)
 2 the caller is authenticated, and its request token is read
 3 strict parse: what the PDP sees is what the policy binding covers
 4 rate guard, before anything that costs an fsync
 5 owner and home
 6 the decision
 7 key state, then unwrap inside the custody
 8 policy binding, in constant time
 9 seal to the caller's key
10 commit the record, which spends the decision and fences everything that was relied on
11 answer with the receipt

No record, no key. An authenticated refusal is recorded with its true reason and answered without
it; unauthenticated noise is counted. In doubt: 503 and no key. A denied caller costs no custody
operation.

SECURITY: Python cannot erase memory. Shares live in this task's locals until the answer is written
and are dropped then; they are never cached, logged or recorded.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec

from envelock_formats.canonical import Json
from envelock_formats.errors import FormatError
from envelock_formats.framing import b64
from envelock_formats.keyid import KeyId
from envelock_formats.request import request_digest
from envelock_formats.wire import KeyResult, PolicyResult, RewrapAnswer
from envelock_kas.asked import Asked, AskedKey, AskedObject, read_asked
from envelock_kas.context import Context
from envelock_kas.custody import Custody
from envelock_kas.decisions import Decisions, Verdicts
from envelock_kas.errors import CustodyError
from envelock_kas.gate import Gate
from envelock_kas.keys.foreign import UnknownKeyError, key_ids_if_known, with_known_keys
from envelock_kas.keys.registry import Standing
from envelock_kas.keys.states import State
from envelock_kas.owner import owner_of
from envelock_kas.pdp import QuestionObject
from envelock_kas.recorder import (
    Draft,
    MovedError,
    Recorder,
    RefusedObject,
    bound_to,
    row,
)
from envelock_kas.records import Origin
from envelock_kas.shares import OpenedShare, ShareError, ShareSealer, unwrap_first
from envelock_ledger.proof import Receipt
from envelock_service.callers import Authenticated
from envelock_service.problem import Problem

_ATTEMPTS = 3
_FORBIDDEN = "permission_denied: request error\nrpc error: code = PermissionDenied desc = forbidden"
_BAD_REQUEST = (
    "invalid_argument: request error\nrpc error: code = InvalidArgument desc = bad request"
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an object is refused, for the record; and what its caller is told."""

    reason: str
    told: str


@dataclass(slots=True)
class Progress:
    """How far each object has come. One task owns it."""

    asked: Asked
    verdicts: Verdicts
    refusals: dict[str, Refusal]
    standings: dict[str, Standing]
    opened: dict[str, Sequence[OpenedShare]]

    def remaining(self) -> list[AskedObject]:
        """The objects that are not refused so far."""
        return [found for found in self.asked.objects if found.id not in self.refusals]

    def keys(self, found: AskedObject) -> Sequence[AskedKey]:
        """The keys of an object; once it is open each means the version that opened it."""
        return [share.key for share in self.opened.get(found.id, ())] or found.keys

    def rows(self, found: AskedObject) -> list[dict[str, Json]]:
        """The rows of an object in a record."""
        return object_rows(found, self.keys(found))

    def refused(self) -> list[RefusedObject]:
        """The refused ones, as the record has them."""
        return [
            RefusedObject(self.rows(found)[0], self.refusals[found.id].reason)
            for found in self.asked.objects
            if found.id in self.refusals
        ]


class Release:
    """Releases keys: one call for one rewrap."""

    def __init__(
        self,
        *,
        gate: Gate,
        decisions: Decisions,
        recorder: Recorder,
        custodies: Mapping[str, Custody],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._gate = gate
        self._decisions = decisions
        self._recorder = recorder
        self._custodies = custodies
        self._entropy = entropy

    async def __call__(
        self, authenticated: Authenticated, token: str, origin: Origin
    ) -> RewrapAnswer:
        """Release what the policy permits of one request.

        Args:
            authenticated: The caller, its proof not yet spent.
            token: The signed request token.
            origin: Request id, address and user agent.

        Returns:
            A result for every key access object; the first carries the receipt.

        Raises:
            Problem: The request as a whole is refused, or something that is needed is not there.
                What had to be recorded is on record.
        """
        context = Context(authenticated, origin, "open", authenticated.token.caller.tenant)
        asked = await self._read(context, token)
        if not asked.known:
            progress = _unknown(asked, Verdicts({}, {}))
            return _answer(progress, {}, None, await self._commit(context, progress))
        await self._own(context, asked)
        verdicts = await self._decide(context, asked)
        progress = _unknown(asked, verdicts)
        for found in asked.known:
            if (reason := verdicts.refusal(found.id)) is not None:
                progress.refusals[found.id] = Refusal(reason, _FORBIDDEN)
        # Of step 9, but made here: a client key that cannot be sealed to costs no unwrap.
        sealer = ShareSealer(asked.client_key, self._entropy)
        await self._open(context, progress)
        sealed = {
            (object_id, place): sealer.seal(share.share)
            for object_id, shares in progress.opened.items()
            for place, share in enumerate(shares)
        }
        receipt = await self._commit(context, progress)  # 10
        return _answer(progress, sealed, sealer.session_pem, receipt)  # 11

    async def _read(self, context: Context, token: str) -> Asked:
        """Steps 2 to 4."""
        # 4 stands first: a malformed request costs a record too
        self._gate.admit(context.caller, len(token))
        try:
            body = self._gate.read_token(context, token)  # 2
            known, home = self._gate.projection, context.caller.tenant
            try:
                return await with_known_keys(  # 3
                    known, home, self._gate.catch_up, partial(read_asked, body)
                )
            except UnknownKeyError:
                return read_asked(body, partial(key_ids_if_known, known, home))
        except FormatError as error:
            await self._recorder.refuse(context, f"malformed: {error}")
            raise Problem("malformed_request", str(error)) from error

    async def _own(self, context: Context, asked: Asked) -> None:
        """Step 5."""
        owner = owner_of(key.key_id for found in asked.known for key in found.keys)
        if owner is None:
            await self._recorder.refuse(context, "tenant: several owners in one request")
            raise Problem("malformed_request", "a request has one owner")
        await self._gate.require_open(context, owner, [found.policy for found in asked.known])
        await self._gate.require_foreign_key(context, asked.client_der)

    async def _decide(self, context: Context, asked: Asked) -> Verdicts:
        """Step 6."""
        context.digest = request_digest(
            kas_id=self._gate.kas_id,
            owner=context.owner,
            caller=context.caller,
            act=context.act,
            key_digest=asked.key_digest,
            objects=[found.requested for found in asked.objects],
        )
        objects = [
            QuestionObject(found.requested, found.entry.policy.body) for found in asked.known
        ]
        return await self._decisions.decide(context, asked.key_digest, objects, asked.body.decision)

    async def _open(self, context: Context, progress: Progress) -> None:
        """Steps 7 and 8 for every object that the decision permits."""
        await self._stand(progress)
        for found in progress.remaining():
            try:
                progress.opened[found.id] = [
                    await self._unwrap(found, key, progress.standings) for key in found.keys
                ]
            except ShareError as error:
                progress.refusals[found.id] = Refusal(str(error), _BAD_REQUEST)
            except CustodyError as error:
                await self._recorder.report(context, f"custody: {error}")
                raise Problem("hsm_unavailable") from error

    async def _unwrap(
        self, found: AskedObject, key: AskedKey, standings: Mapping[str, Standing]
    ) -> OpenedShare:
        may = [standings[str(key_id)] for key_id in key.key_ids if str(key_id) in standings]
        versions = [standing.version for standing in may if standing.refusal is None]
        return await unwrap_first(found, key, versions, self._custodies)

    async def _stand(self, progress: Progress) -> None:
        """Key states, and the numbers that prove them; refuses objects whose keys may not open.

        What this worker knows may be old: before any refusal it reads on, once a request.
        """
        if any(self._judge(key) is not None for key in _keys(progress)):
            await self._gate.catch_up()
        for found in progress.remaining():
            for key in progress.keys(found):
                if (refusal := self._judge(key)) is not None:
                    progress.refusals[found.id] = refusal
                    break
                for key_id in key.key_ids:
                    standing = self._gate.projection.registry.standing(key_id)
                    if standing is not None:
                        progress.standings[str(key_id)] = standing

    def _judge(self, key: AskedKey) -> Refusal | None:
        """Why the key may not open, as far as this worker knows; of several none may."""
        refusals = [self._judge_version(key_id) for key_id in key.key_ids]
        return None if None in refusals else refusals[0]

    def _judge_version(self, key_id: KeyId) -> Refusal | None:
        standing = self._gate.projection.registry.standing(key_id)
        if standing is None:
            return Refusal(f"key {key_id} unknown", _FORBIDDEN)
        if standing.refusal is not None:
            return Refusal(standing.refusal, _told(standing))
        return None

    async def _commit(self, context: Context, progress: Progress) -> Receipt | None:
        """Step 10: the receipt, or None when every object is refused, on record.

        A fence that moved meanwhile is read again, and may refuse after all.
        """
        for _ in range(_ATTEMPTS):
            if not progress.remaining():
                refused = progress.refused()
                await self._recorder.refuse(context, refused[0].reason, refused)
                return None
            try:
                return await self._recorder.commit(context, self._draft(context, progress))
            except MovedError as moved:
                await self._gate.read_on(context, str(moved))
                await self._stand(progress)
        raise Problem("policy_stale")

    def _draft(self, context: Context, progress: Progress) -> Draft:
        released = progress.remaining()
        fences = self._gate.fences(context)
        for found in released:
            for key in progress.keys(found):
                fences |= progress.standings[str(key.key_id)].fences
                if key.online is not None:
                    fences[f"object:{found.id}"] = 0  # moved once its policy has been replaced
        return Draft(
            typ="release",
            fields={"objs": [line for found in released for line in progress.rows(found)]},
            bound_to=bound_to(context, [found.id for found in released]),
            fences=fences,
            refused=progress.refused(),
            seen=progress.asked.body.seen,
        )


def _unknown(asked: Asked, verdicts: Verdicts) -> Progress:
    """The request's progress where nothing is judged but which keys are known."""
    refusals: dict[str, Refusal] = {}
    for found in asked.objects:
        for key in found.keys:
            if not key.key_ids:
                reason = f"no key is known as {(key.access.kid or '')!r}"
                refusals[found.id] = Refusal(reason, _FORBIDDEN)
    return Progress(asked, verdicts, refusals, {}, {})


def _keys(progress: Progress) -> list[AskedKey]:
    """The keys of every object that is not refused so far."""
    return [key for found in progress.remaining() for key in progress.keys(found)]


def object_rows(
    found: AskedObject, keys: Sequence[AskedKey] | None = None
) -> list[dict[str, Json]]:
    """The object's rows in a record: one for each key of *keys*, or of those that it names."""
    kids = dict.fromkeys(key.kid for key in (found.keys if keys is None else keys))
    return [row(found.id, kid, found.requested.policy_sha256) for kid in kids]


def _told(standing: Standing) -> str:
    """Key states are told, in words clients match on, to callers whom the decision permits."""
    state = standing.version.state
    word = "kek_destroyed" if state is State.DESTROYED else "kek_disabled"
    return f"{_FORBIDDEN} ({word})"


def _answer(
    progress: Progress,
    sealed: Mapping[tuple[str, int], bytes],
    session_pem: str | None,
    receipt: Receipt | None,
) -> RewrapAnswer:
    """Step 11."""
    carried: dict[str, object] = {} if receipt is None else {"receipt": receipt.text()}
    responses: list[PolicyResult] = []
    for entry in progress.asked.entries:
        results: list[KeyResult] = []
        for place, entry_id in enumerate(entry.key_entries):
            name = (entry.object_id, place)
            results.append(_result(progress, name, entry_id, sealed, carried))
            carried = {}
        responses.append(PolicyResult(entry.policy_id, tuple(results)))
    answer = RewrapAnswer(tuple(responses), session_pem if receipt is not None else None)
    return _in_older_form(answer) if progress.asked.body.older else answer


def _in_older_form(answer: RewrapAnswer) -> RewrapAnswer:
    """The answer to the older form: one key, and a refusal is an error of the whole request."""
    [result] = answer.responses[0].results
    if result.error is not None:
        raise Problem("bad_request" if result.error == _BAD_REQUEST else "access_denied")
    return msgspec.structs.replace(answer, entityWrappedKey=result.kasWrappedKey)


def _result(
    progress: Progress,
    name: tuple[str, int],
    entry_id: str,
    sealed: Mapping[tuple[str, int], bytes],
    carried: Mapping[str, object],
) -> KeyResult:
    """The result of the key *name*, which is the object's id and the place of the key in it."""
    owed = list(progress.verdicts.obligations(name[0]))
    metadata: dict[str, object] = {"X-Required-Obligations": owed, **carried}
    if (refusal := progress.refusals.get(name[0])) is not None:
        return KeyResult(entry_id, "fail", metadata, error=refusal.told)
    return KeyResult(entry_id, "permit", metadata, kasWrappedKey=b64(sealed[name]))

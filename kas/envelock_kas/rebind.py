"""A new policy on an old key: the share is unwrapped, bound and wrapped anew, and never leaves.

The same steps and numbers as `release`. What differs: step 6 is decided under the former and the
new policy, step 7 also wraps, step 9 seals nothing to anybody, and the record names both objects.

An online wrap is replaced for good: the record moves the fence of the former object, so no copy of
it opens again. Its successor's id follows from the former id and the new policy, and the record
moves a fence in that name too. So whoever did not get the answer, or lost it before it was in the
file, asks for the same again with the former file, and is answered again; any other policy is
refused. Offline wraps are made beside the former ones: who kept those can open them as before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from envelock_formats.canonical import Json
from envelock_formats.errors import FormatError
from envelock_formats.request import RequestedObject, key_sha256, policy_sha256, request_digest
from envelock_formats.tdf.policy import Policy, parse_policy
from envelock_formats.wire import (
    KeyAccessEntry,
    ObjectEntry,
    PolicyEntry,
    RebindAnswer,
    RebindBody,
    WireError,
    read_rebind,
)
from envelock_kas.asked import AskedKey, AskedObject, KeyIds, read_object
from envelock_kas.context import Context
from envelock_kas.custody import AES
from envelock_kas.decisions import Decisions
from envelock_kas.errors import CustodyError
from envelock_kas.gate import Gate
from envelock_kas.keys.foreign import with_known_keys
from envelock_kas.keys.states import REWRAPS, WRAPS
from envelock_kas.owner import owner_of
from envelock_kas.pdp import QuestionObject
from envelock_kas.recorder import Draft, MovedError, Recorder, RefusedObject, bound_to, row
from envelock_kas.records import Origin
from envelock_kas.release import object_rows
from envelock_kas.rewrapping import Rebound, Rewrapper, Stood, is_online
from envelock_kas.shares import ShareError
from envelock_ledger.proof import Receipt
from envelock_service.callers import Authenticated
from envelock_service.problem import Problem

NOBODY = key_sha256(b"")  # in place of a client's key: nothing is sealed to anybody
UNKNOWN = "key unknown"
OVERTAKEN = "object has another policy now"


@dataclass(frozen=True, slots=True)
class Wish:
    """A request to rebind, read."""

    body: RebindBody
    former: AskedObject
    policy: Policy  # the new one
    requested: RequestedObject

    @property
    def online(self) -> bool:
        """Whether the object's key was wrapped online."""
        return is_online(self.former)


class Rebind:
    """Replaces policies: one call for one object."""

    def __init__(
        self,
        *,
        gate: Gate,
        decisions: Decisions,
        recorder: Recorder,
        rewrapper: Rewrapper,
    ) -> None:
        self._gate = gate
        self._decisions = decisions
        self._recorder = recorder
        self._rewrapper = rewrapper

    async def __call__(
        self, authenticated: Authenticated, token: str, origin: Origin
    ) -> RebindAnswer:
        """Replace the policy of one object.

        Args:
            authenticated: The caller, its proof not yet spent.
            token: The signed request token around a `RebindBody`.
            origin: Request id, address and user agent.

        Raises:
            Problem: The request is refused, or something that is needed is not there. What had to
                be recorded is on record.
        """
        context = Context(authenticated, origin, "rebind", authenticated.token.caller.tenant)
        wish = await self._read(context, token)  # 2 to 4
        await self._own(context, wish)  # 5
        await self._decide(context, wish)  # 6
        stood = await self._stand(context, wish)  # 7
        try:
            rebound = await self._rewrapper(wish.former, wish.body.newPolicy, stood)  # 7, 8
        except ShareError as error:
            await self._refuse(context, wish, str(error))
            raise Problem("malformed_request", "the object does not open") from error
        except CustodyError as error:
            await self._recorder.report(context, f"custody: {error}")
            raise Problem("hsm_unavailable") from error
        receipt = await self._commit(context, wish, rebound)  # 10
        return RebindAnswer(rebound.id, rebound.keys, receipt.text())  # 11

    async def _read(self, context: Context, token: str) -> Wish:
        # 4 stands first: a malformed request costs a record too
        self._gate.admit(context.caller, len(token))
        try:
            body = self._gate.read_token(context, token)
            known, home = self._gate.projection, context.caller.tenant
            return await with_known_keys(known, home, self._gate.catch_up, partial(_wish, body))
        except FormatError as error:
            await self._recorder.refuse(context, f"malformed: {error}")
            raise Problem("malformed_request", str(error)) from error

    async def _own(self, context: Context, wish: Wish) -> None:
        """Step 5, for both policies."""
        owner = owner_of(key.key_id for key in wish.former.keys)
        if owner is None:
            await self._recorder.refuse(context, "tenant: several owners in one request")
            raise Problem("malformed_request", "a request has one owner")
        await self._gate.require_open(context, owner, [wish.former.policy, wish.policy])

    async def _decide(self, context: Context, wish: Wish) -> None:
        """Step 6: under both policies, or not at all."""
        context.digest = request_digest(
            kas_id=self._gate.kas_id,
            owner=context.owner,
            caller=context.caller,
            act=context.act,
            key_digest=NOBODY,
            objects=[wish.requested],
        )
        question = [QuestionObject(wish.requested, wish.body.policy, wish.body.newPolicy)]
        verdicts = await self._decisions.decide(context, NOBODY, question, wish.body.decision)
        if (reason := verdicts.refusal(wish.requested.id)) is not None:
            await self._refuse(context, wish, reason)
            raise Problem("access_denied")

    async def _stand(self, context: Context, wish: Wish) -> Sequence[Stood]:
        """The versions that open and wrap, and the numbers that prove them."""
        stood = await self._judge_all(context, wish)
        # What names a key that never wrapped online does not open, and has nothing made for it.
        if is_online(wish.former) and stood[0].opens.version.material(AES) is not None:
            path = stood[0].wraps.version.id.path
            wraps = await self._gate.require_wraps(context, path, 1)
            [again] = await self._judge_all(context, wish)  # the path may have been rotated
            return [Stood(again.opens, wraps)]
        return stood

    async def _judge_all(self, context: Context, wish: Wish) -> Sequence[Stood]:
        """What stands about each key, or a refusal.

        What this worker knows may be old: before any refusal it reads on, once.
        """
        found = [self._judge(key) for key in wish.former.keys]
        if any(isinstance(one, str) for one in found):
            await self._gate.catch_up()
            found = [self._judge(key) for key in wish.former.keys]
        for one in found:
            if isinstance(one, str):
                await self._refuse(context, wish, one)
                # Key states are told to callers whom the decision permits; which keys exist is not.
                raise Problem("access_denied") if one == UNKNOWN else Problem("conflict", one)
        return [one for one in found if isinstance(one, Stood)]

    def _judge(self, key: AskedKey) -> Stood | str:
        """What may open and wrap, as far as this worker knows; or why nothing may."""
        registry = self._gate.projection.registry
        newest = registry.newest(key.key_id.path)
        opens = registry.standing(key.key_id, permitted=REWRAPS)
        if newest is None or opens is None:
            return UNKNOWN
        wraps = registry.standing(newest.id, permitted=WRAPS)
        if wraps is None:
            return UNKNOWN
        refusal = opens.refusal or wraps.refusal
        return Stood(opens, wraps) if refusal is None else refusal

    async def _commit(self, context: Context, wish: Wish, rebound: Rebound) -> Receipt:
        """Step 10.

        A key that moved meanwhile wraps nothing new: the caller asks again. An online object that
        was rebound before is answered again when it was to this very policy.
        """
        try:
            try:
                return await self._recorder.commit(context, self._draft(context, wish, rebound))
            except MovedError as moved:
                if str(moved) != f"object:{wish.former.id}":
                    raise
            return await self._recorder.commit(context, self._again(context, wish, rebound))
        except MovedError as moved:
            if str(moved) in _made_by(rebound):
                await self._refuse(context, wish, OVERTAKEN)
                raise Problem("conflict", OVERTAKEN) from moved
            await self._gate.read_on(context, str(moved))
            await self._refuse(context, wish, f"moved meanwhile: {moved}")
            raise Problem("policy_stale") from moved

    def _draft(self, context: Context, wish: Wish, rebound: Rebound) -> Draft:
        """The record, which moves the fences of both objects when they are online wraps."""
        new_policy = wish.requested.new_policy_sha256 or b""
        kids = dict.fromkeys(key.kid or "" for key in rebound.keys)
        fields: dict[str, Json] = {
            "objs": list(object_rows(wish.former)),
            "new": [row(rebound.id, kid, new_policy) for kid in kids],
        }
        if wish.online:
            fields["moves"] = {f"object:{wish.former.id}": 1, f"rebound:{rebound.id}": 1}
        return Draft(
            typ="rebind",
            fields=fields,
            bound_to=bound_to(context, [rebound.id]),
            fences=self._gate.fences(context) | dict(rebound.fences),
            seen=wish.body.seen,
            repeatable=False,
        )

    def _again(self, context: Context, wish: Wish, rebound: Rebound) -> Draft:
        """The record of a rebinding that is on record already, and not overtaken by another.

        INVARIANT: it moves nothing, and holds only where the first one has moved what it expects.
        """
        first = self._draft(context, wish, rebound)
        fields = {name: value for name, value in first.fields.items() if name != "moves"}
        fences = {**first.fences, **_made_by(rebound)}
        return replace(first, fields=fields, fences=fences, repeatable=True)

    async def _refuse(self, context: Context, wish: Wish, reason: str) -> None:
        refused = RefusedObject(object_rows(wish.former)[0], reason)
        await self._recorder.refuse(context, reason, [refused])


def _made_by(rebound: Rebound) -> dict[str, int]:
    """The numbers of an online object that was made by a rebinding and still has that policy."""
    return {f"rebound:{rebound.id}": 1, f"object:{rebound.id}": 0}


def _wish(body: bytes, key_ids: KeyIds) -> Wish:
    read = read_rebind(body)
    entries = tuple(KeyAccessEntry(str(place), key) for place, key in enumerate(read.keyAccess))
    former = read_object(ObjectEntry(entries, PolicyEntry("policy", read.policy)), key_ids)
    if any(len(key.key_ids) != 1 for key in former.keys):
        raise WireError("a key access object names no key, and more than one may be meant")
    requested = replace(former.requested, new_policy_sha256=policy_sha256(read.newPolicy))
    return Wish(read, former, parse_policy(read.newPolicy), requested)

"""Which bundle is in force for which tenant, kept up with the files on disk.

INVARIANT: a bundle is in force whole or not at all, and only under the epoch that it was given. A
change that does not load, or that is a rollback, leaves the one before in force. A change that
loads and cannot be announced leaves none: a policy that was just tightened must not go on deciding
in its old form, so the tenant is answered "not now" until the epoch is there.

One task calls `refresh`; everything else only reads.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from envelock_formats.framing import b64url
from envelock_formats.printable import printable
from envelock_pdp import BundleError, EpochsUnavailableError, NotInForceError, RollbackError
from envelock_pdp.epochs import Epochs
from envelock_pdp.evaluate import Bundle
from envelock_pdp.folder import Signature, find_bundles, load_bundle, signature

POLL_SECONDS = 0.5
MAX_WAIT = 16  # polls between two attempts to announce


@dataclass(frozen=True, slots=True)
class InForce:
    """A bundle with its epoch."""

    bundle: Bundle
    epoch: int


@dataclass(slots=True)
class _Slot:
    """One folder; written by `Policies.refresh` alone."""

    path: Path
    tenant: str | None = None
    in_force: InForce | None = None
    kept: InForce | None = None  # what was in force before `waiting`
    waiting: Bundle | None = None  # loaded, without an epoch
    seen: Signature | None = None  # at the last poll
    read: Signature | None = None  # what was last loaded, with or without success
    wait: int = 1
    polls_left: int = 0


class Policies:
    """The bundles below a folder.

    Args:
        root: One bundle, or a folder of them.
        epochs: Whoever counts epochs.
        confirmed: Digests (base64url) that an operator lets come back.
        say: Prints one line for the operator.
    """

    def __init__(
        self,
        root: Path,
        epochs: Epochs,
        confirmed: Collection[str],
        say: Callable[[str], None],
    ) -> None:
        self._root = root
        self._epochs = epochs
        self._confirmed = frozenset(confirmed)
        self._say = say
        self._slots: dict[Path, _Slot] = {}
        self._trouble = ""

    def of(self, tenant: str) -> InForce:
        """The bundle in force for *tenant*.

        Raises:
            NotInForceError: There is none now.
        """
        for slot in self._slots.values():
            if slot.in_force is not None and slot.in_force.bundle.tenant == tenant:
                return slot.in_force
        raise NotInForceError(f"no bundle is in force for tenant {printable(tenant[:100])}")

    def owner(self, namespaces: Iterable[str]) -> str | None:
        """The one tenant whose bundle in force has all *namespaces*; None when there is none."""
        wanted = frozenset(namespaces)
        for found in self.all():
            if wanted and wanted.issubset(found.bundle.namespaces):
                return found.bundle.tenant
        return None

    def all(self) -> tuple[InForce, ...]:
        """Everything in force."""
        return tuple(slot.in_force for slot in self._slots.values() if slot.in_force is not None)

    def missing(self) -> tuple[str, ...]:
        """Folders whose bundle is not in force, by name."""
        return tuple(slot.path.name for slot in self._slots.values() if slot.in_force is None)

    async def run(self) -> None:
        """Keep up for ever."""
        while True:
            await self.refresh()
            await asyncio.sleep(POLL_SECONDS)

    async def refresh(self) -> None:
        """Look at every folder once; load what has changed and come to rest."""
        try:
            for path in find_bundles(self._root):
                self._slots.setdefault(path, _Slot(path))
            self._trouble = ""
        except BundleError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                self._say(f"policies: {printable(str(error))}")
        for slot in list(self._slots.values()):
            await self._refresh(slot)

    async def _refresh(self, slot: _Slot) -> None:
        now = _signature(slot.path)
        # A folder that is still being written is left alone until two polls see the same.
        settled = slot.seen in {None, now}
        slot.seen = now
        if now and settled and now != slot.read:
            slot.read = now
            self._load(slot)
        if slot.waiting is not None:
            slot.polls_left -= 1
            if slot.polls_left <= 0:
                await self._announce(slot, slot.waiting)

    def _load(self, slot: _Slot) -> None:
        try:
            bundle = load_bundle(slot.path, slot.read)
            if _signature(slot.path) != slot.read:
                slot.read = None  # written while it was read: once more at the next poll
                return
            self._require_own(slot, bundle)
        except BundleError as error:
            if _signature(slot.path) != slot.read:
                slot.read = None
                return
            self._keep(slot, str(error))
            return
        slot.tenant = bundle.tenant
        current = slot.in_force or slot.kept
        if slot.waiting is None and current is not None and current.bundle.digest == bundle.digest:
            return
        slot.waiting, slot.wait, slot.polls_left = bundle, 1, 0

    async def _announce(self, slot: _Slot, bundle: Bundle) -> None:
        confirm = b64url(bundle.digest) in self._confirmed
        try:
            epoch = await self._epochs.announce(bundle, confirm=confirm)
        except RollbackError:
            slot.in_force, slot.kept, slot.waiting = slot.in_force or slot.kept, None, None
            digest = b64url(bundle.digest)
            self._keep(
                slot,
                "this bundle was in force before, and another has followed;"
                f' to go back, set [pdp] confirm_rollback = ["{digest}"] and start again',
            )
            return
        except EpochsUnavailableError as error:
            if slot.wait == 1:
                reason = printable(str(error))
                self._say(f"policy {self._name(slot)}: waits for its epoch: {reason}")
            slot.in_force, slot.kept = None, slot.in_force or slot.kept
            slot.wait = min(2 * slot.wait, MAX_WAIT)
            slot.polls_left = slot.wait
            return
        before = slot.in_force or slot.kept
        slot.in_force, slot.kept, slot.waiting = InForce(bundle, epoch.number), None, None
        step = f"epoch {before.epoch} -> {epoch.number}" if before else f"epoch {epoch.number}"
        self._say(f"policy {bundle.tenant}: {step} in force, record {epoch.record}")

    def _require_own(self, slot: _Slot, bundle: Bundle) -> None:
        """One bundle a tenant, one tenant a namespace; a running bundle keeps its tenant."""
        if slot.tenant not in {None, bundle.tenant}:
            raise BundleError("bundle.toml", "the tenant of a bundle does not change; start again")
        for other in self._slots.values():
            for held in (other.in_force, other.kept, other.waiting):
                theirs = held.bundle if isinstance(held, InForce) else held
                if other is slot or theirs is None:
                    continue
                if theirs.tenant == bundle.tenant:
                    raise BundleError(
                        "bundle.toml", f"tenant {bundle.tenant} has a bundle: {other.path.name}"
                    )
                if shared := set(theirs.namespaces) & set(bundle.namespaces):
                    raise BundleError(
                        "bundle.toml", f"namespace {min(shared)} is that of {theirs.tenant}"
                    )

    def _keep(self, slot: _Slot, problem: str) -> None:
        state = f"epoch {slot.in_force.epoch} kept" if slot.in_force else "not in force"
        self._say(f"policy {self._name(slot)}: {state}: {printable(problem)}")

    def _name(self, slot: _Slot) -> str:
        return slot.tenant or printable(slot.path.name)


def _signature(path: Path) -> Signature:
    """Empty while the folder cannot be read: the bundle in force stays."""
    try:
        return signature(path)
    except OSError:
        return ()

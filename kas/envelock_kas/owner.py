"""Step 5 of a release: whose object it is, and whether the caller's tenant may ask for it.

One tenant owns the key, the object, the decision and the bundle; it is read from the key id. Every
attribute namespace of the policy must be that tenant's. The caller is at home there, or a sharing
rule in the *owner's* bundle admits its home.
"""

from collections.abc import Iterable

from envelock_formats.keyid import KeyId
from envelock_formats.tdf.policy import Policy
from envelock_kas.projection import Projection


class OwnershipError(Exception):
    """Tenants do not fit together; the message is the reason for the record."""


def owner_of(key_ids: Iterable[KeyId]) -> str | None:
    """The one tenant of all keys; None when they belong to several."""
    tenants = {key_id.tenant for key_id in key_ids}
    return tenants.pop() if len(tenants) == 1 else None


def require_ownership(
    projection: Projection, *, owner: str, home: str, policies: Iterable[Policy]
) -> None:
    """Check that *owner*, the caller's *home* and every policy fit together.

    Raises:
        OwnershipError: The owner has no bundle in force, a namespace is not the owner's, or the
            caller is at home elsewhere and the owner does not share with that tenant.
    """
    state = projection.policy(owner)
    if state is None:
        raise OwnershipError("tenant: no policy in force")
    for policy in policies:
        if foreign := sorted(policy.namespaces - set(state.current.namespaces)):
            raise OwnershipError(f"tenant: namespace {foreign[0]} is not the owner's")
    if home != owner and home not in state.current.sharing:
        raise OwnershipError("tenant: caller is at home elsewhere")

"""Example policy bundles, each with the cases that it must decide.

`clinic` is what the first `up` copies to its data directory. `saas` holds two bundles, one for each
tenant of a shared service: `acme` admits callers of `globex`, and not the other way. `coalition`
holds those of two organisations that share: each says itself what the other opens of its data.
"""

from pathlib import Path

_HERE = Path(__file__).parent


def names() -> tuple[str, ...]:
    """The shipped bundles, and folders of bundles, by name."""
    found = (path.parent for path in _HERE.rglob("bundle.toml"))
    tops = {path.relative_to(_HERE).parts[0] for path in found}
    return tuple(sorted(tops))


def path(name: str) -> Path:
    """The folder of the bundle, or folder of bundles, called *name*; `saas/acme` names one of two.

    Raises:
        LookupError: None is shipped under that name.
    """
    parts = name.split("/")
    folder = _HERE.joinpath(*parts)
    named = all(part.isalnum() for part in parts)  # so no part is empty, hidden or a way up
    if not named or not next(folder.rglob("bundle.toml"), None):
        raise LookupError(f"no bundle called {name!r} is shipped")
    return folder

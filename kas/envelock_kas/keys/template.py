"""Which path a new object uses: a template such as `{tenant}:{dataset}:{epoch:%Y-%m}`.

Fields are `tenant`, `dataset`, `epoch` (with a strftime format), `domain`, `class`, `subject` and
`object`. Subjects and objects render as truncated HMACs under an erasable key of the tenant, never
as they are: a path stands in manifests and records for ever.
"""

import hashlib
import hmac
import string
from collections.abc import Mapping
from datetime import UTC, datetime

from envelock_formats.keyid import KeyIdError, KeyPath

PERSONAL = frozenset({"subject", "object"})
PLAIN = frozenset({"tenant", "dataset", "domain", "class"})
DEFAULT = "default"
_PSEUDONYM_CHARACTERS = 24
_EPOCH_DEFAULT = "%Y-%m"


class TemplateError(KeyIdError):
    """A template that cannot be used, or a value that it lacks."""


def check_template(template: str) -> None:
    """Refuse a template that names an unknown field or does not begin with the tenant.

    Raises:
        TemplateError: The template is not usable.
    """
    fields = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    if unknown := sorted(set(fields) - PLAIN - PERSONAL - {"epoch"}):
        raise TemplateError(f"key template {template!r}: unknown field {unknown[0]!r}")
    if "tenant" in fields and not template.startswith("{tenant}"):
        raise TemplateError(f"key template {template!r}: the tenant is the first part")


def render(
    template: str, values: Mapping[str, str], *, now: float, pseudonym_key: bytes
) -> KeyPath:
    """Render *template* into a key path.

    Args:
        template: As the module docstring describes it; checked by `check_template`.
        values: The fields that are known; an absent or empty tenant is the literal `default`.
        now: Unix seconds; `epoch` is formatted in UTC.
        pseudonym_key: Secret of the tenant, at least 16 bytes.

    Raises:
        TemplateError: A field has no value.
        KeyIdError: The result is no key path, because a value holds a character it may not.
    """
    parts: list[str] = []
    for literal, name, spec, _ in string.Formatter().parse(template):
        parts.append(literal)
        if name is not None:
            parts.append(_field(name, spec or "", values, now, pseudonym_key))
    return KeyPath("".join(parts))


def _field(name: str, spec: str, values: Mapping[str, str], now: float, secret: bytes) -> str:
    if name == "epoch":
        return datetime.fromtimestamp(now, UTC).strftime(spec or _EPOCH_DEFAULT)
    value = values.get(name) or (DEFAULT if name == "tenant" else "")
    if not value:
        raise TemplateError(f"the key template needs a {name}")
    if name in PERSONAL:
        mac = hmac.digest(secret, value.encode(), hashlib.sha256)
        return mac.hex()[:_PSEUDONYM_CHARACTERS]
    if ":" in value:
        raise TemplateError(f"{name} {value!r} must be one part of a key path")
    return value

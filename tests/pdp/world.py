"""Bundles and requests, short enough to stand inside a test."""

import json
from typing import Any

from envelock_formats.canonical import parse
from envelock_formats.fqn import AttributeValue
from envelock_formats.tdf.policy import Policy
from envelock_pdp.bundle import read_bundle
from envelock_pdp.compile import Facts, RuleSet, compile_rules
from envelock_pdp.evaluate import AccessRequest, Bundle
from envelock_pdp.rules import read_rules

NOON = 1_767_614_400  # 2026-01-05T12:00:00Z, a Monday
NAMESPACE = "clinic.example"
ATTRIBUTES = [
    {"name": "clearance", "rule": "hierarchy", "values": ["secret", "internal", "public"]},
    {"name": "department", "rule": "anyOf", "values": ["cardiology", "oncology"]},
    {"name": "handling", "rule": "allOf", "values": ["personal", "study"]},
]
MAPPINGS = [
    {
        "claim": f"$.{claim}",
        "operator": "in",
        "values": [value],
        "grants": f"{attribute['name']}={value}",
    }
    for claim, attribute in zip(("clearance", "departments", "trainings"), ATTRIBUTES, strict=True)
    for value in attribute["values"]
]


def rule(uid: str = "r", effect: str = "allow", **blocks: Any) -> dict[str, Any]:
    """A rule as JSON; `targets` is taken from the blocks."""
    targets = blocks.pop("targets", {})
    return {"uid": uid, "effect": effect, "targets": targets, "rules": blocks}


def compiled(*rules: dict[str, Any], names: frozenset[str] = frozenset({"clearance"})) -> RuleSet:
    """Rules read and compiled."""
    return compile_rules(read_rules(list(rules), names))


def facts(subject: Any = None, resource: Any = None, context: Any = None, **ids: str) -> Facts:
    """Facts about a request."""
    return Facts(
        subject_id=ids.get("subject_id", "doctor"),
        resource_id=ids.get("resource_id", "object"),
        action_id=ids.get("action_id", "open"),
        subject=subject or {},
        resource=resource or {},
        action={},
        context=context or {},
    )


def files(
    *rules: dict[str, Any],
    head: str = "",
    required: bool = False,
    tenant: str = "clinic",
    namespace: str = NAMESPACE,
) -> dict[str, bytes]:
    """The files of a bundle."""
    mode = "required" if required else "optional"
    toml = (
        f'tenant = "{tenant}"\nnamespaces = ["{namespace}"]\n'
        f'contact = "records@{namespace}"\nrules = "{mode}"\n{head}'
    )
    return {
        "bundle.toml": toml.encode(),
        "attributes.json": json.dumps(ATTRIBUTES).encode(),
        "mappings.json": json.dumps(MAPPINGS).encode(),
        "rules/all.json": json.dumps(list(rules)).encode(),
    }


def bundle(*rules: dict[str, Any], **settings: Any) -> Bundle:
    """A bundle with the attributes above."""
    return read_bundle(files(*rules, **settings))


def request(*attrs: str, claims: dict[str, Any] | None = None, **given: Any) -> AccessRequest:
    """Somebody of the clinic asks to open an object that asks for *attrs*."""
    asked = tuple(
        AttributeValue.parse_short(name if "/" in name else f"{NAMESPACE}/{name}") for name in attrs
    )
    values: dict[str, Any] = {
        "subject": "doctor",
        "tenant": "clinic",
        "action": "open",
        "object_id": "object",
        "policy": Policy("00000000-0000-0000-0000-000000000000", asked, given.pop("dissem", ())),
    }
    return AccessRequest(claims=claims or {}, **(values | given))


def strict(text: str) -> Any:
    """JSON as the bundle reads it."""
    return parse(text.encode())

"""What is wrong with the key access objects, the policy and the assertions of a manifest."""

import json
from typing import Any

from envelock.addresses import origin
from envelock.ailments import Findings
from envelock.errors import ConfigError
from envelock.shapes import (
    Members,
    ShapeError,
    decoded,
    object_of,
    optional_text,
    text_of,
    unknown_members,
)
from envelock_formats.errors import FormatError
from envelock_formats.framing import from_b64
from envelock_formats.online import is_online
from envelock_formats.tdf.assertions import MAX_ASSERTIONS, StatedAssertion, read_assertion
from envelock_formats.tdf.keyaccess import PolicyBinding, binding_mac
from envelock_formats.tdf.policy import MAX_POLICY, parse_policy

_ZEROS = "00000000-0000-0000-0000-000000000000"
_PLAIN_TYPES, _NEW_TYPES = {"wrapped", "ec-wrapped"}, {"mlkem-wrapped", "hybrid-wrapped"}
_RAW = 32
_RSA_SIZES = frozenset({256, 384, 512})


def examine_keys(keys: list[Any], findings: Findings) -> None:
    """Note what is wrong with key access objects."""
    if not keys:
        findings.add("key-access-none", "keyAccess")
    places: set[tuple[str, str]] = set()
    bad: dict[str, list[str]] = {}  # by split: the objects whose wraps are malformed, or empty
    for number, key in enumerate(keys):
        where = f"keyAccess {number}"
        if not isinstance(key, dict):
            raise ShapeError(where)
        unknown_members("keyAccess", key, where, findings)
        place = (text_of(key, "url"), optional_text(key, "sid"))
        if place in places:
            findings.add("key-access-twice", where)
        places.add(place)
        _examine_key(key, where, findings)
        bad.setdefault(place[1], []).extend([where] if _is_bad_wrap(key) else [""])
        _examine_binding(key.get("policyBinding"), where, findings)
    for wheres in bad.values():
        code = "key-access-wrap" if all(wheres) else "key-access-wrap-of-several"
        for where in filter(None, wheres):
            findings.add(code, where)
    if len(bad) > 1:
        findings.add("key-split", f"{len(bad)} splits")


def _examine_key(key: Members, where: str, findings: Findings) -> None:
    kind = text_of(key, "type")
    if kind in _NEW_TYPES:
        findings.add("key-access-post-quantum", where)
    elif kind not in _PLAIN_TYPES:
        findings.add("key-access-type", f"{where} {kind!r}")
    if not key.get("kid"):
        findings.add("key-access-kid", where)
    try:
        origin(key["url"])
    except ConfigError:
        findings.add("key-access-url", where)


def _is_bad_wrap(key: Members) -> bool:
    kind, wrapped = key.get("type"), decoded(key.get("wrappedKey"))
    if not wrapped or (kind == "ec-wrapped" and not key.get("ephemeralPublicKey")):
        return True
    return kind == "wrapped" and len(wrapped) not in _RSA_SIZES and not is_online(wrapped)


def _examine_binding(binding: object, where: str, findings: Findings) -> None:
    stated: object = binding
    if isinstance(binding, str):
        findings.add("binding-bare", where)
    elif isinstance(binding, dict):
        if not binding.get("alg"):
            findings.add("binding-without-alg", where)
        texts = [binding.get(name, "") for name in ("hash", "alg", "algorithm")]
        stated = PolicyBinding(*texts) if all(isinstance(t, str) for t in texts) else None
    try:
        readable = isinstance(stated, (str, PolicyBinding)) and binding_mac(stated)
    except FormatError:
        readable = False
    if not readable or not isinstance(stated, (str, PolicyBinding)):
        findings.add("binding-malformed", where)
        return
    if len(from_b64(stated if isinstance(stated, str) else stated.hash)) == _RAW:
        findings.add("binding-raw", where)


def examine_policy(text: str, findings: Findings) -> None:
    """Note what is wrong with the policy, given as base64."""
    try:
        members = json.loads(decoded(text)[:MAX_POLICY])
        object_of(members if isinstance(members, dict) else {}, "body")
    except (ValueError, RecursionError, ShapeError):
        findings.add("policy-unreadable", "policy")
        return
    try:
        policy = parse_policy(text)
    except FormatError as error:
        findings.add("policy-strict", str(error))
        return
    if policy.uuid == _ZEROS:
        findings.add("policy-uuid", "policy")
    if not policy.attributes and not policy.dissem:
        findings.add("policy-empty", "policy")


def examine_assertions(found: object, findings: Findings) -> None:
    """Note what is wrong with the list of assertions, or with what stands in its place."""
    if found is None:
        return
    if not isinstance(found, list):
        raise ShapeError("assertions")
    if len(found) > MAX_ASSERTIONS:
        findings.add("assertions-too-many", f"{len(found)}")
        return
    ids: set[str] = set()
    for number, value in enumerate(found):
        where = f"assertion {number}"
        try:
            stated = read_assertion(value)
        except FormatError:
            findings.add("assertion-malformed", where)
            continue
        _examine_assertion(stated, where, findings)
        if not _is_complete(value):
            findings.add("assertion-incomplete", where)
        if stated.id in ids:
            findings.add("assertion-twice", where)
        ids.add(stated.id)


def _examine_assertion(stated: StatedAssertion, where: str, findings: Findings) -> None:
    if not stated.signature:
        findings.add("assertion-unbound", where)
    elif stated.algorithm != "HS256":
        findings.add("assertion-author", f"{where} ({stated.algorithm or 'unreadable'})")
    if stated.brings_key:
        findings.add("assertion-key-inside", where)
    if stated.value_is_object:
        findings.add("assertion-object", where)


def _is_complete(value: Members) -> bool:
    """Whether an assertion has the members that a reader without defaults wants."""
    binding = value.get("binding")
    known = not isinstance(binding, dict) or binding.keys() == {"method", "signature"}
    return known and value.keys() >= {"id", "type", "scope", "statement"}

"""AuthZEN bodies, read into questions (Authorization API 1.0, sections 6 and 7).

Members that are not known are passed over, as the API wants it. An evaluation takes each of
`subject`, `action`, `resource` and `context` whole, from itself or else from the top level.

A body that is malformed fails whole. An evaluation that is malformed fails the call of a caller; in
the call of an enforcement point, who asks for many callers at once, it stands as `Malformed`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Literal, TypeAlias, TypeVar

import msgspec

from envelock_formats.canonical import decode
from envelock_formats.errors import FormatError
from envelock_formats.framing import from_b64url
from envelock_pdp import QuestionError

_SHA256_BYTES = 32
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Semantic: TypeAlias = Literal["execute_all", "deny_on_first_deny", "permit_on_first_permit"]
Act: TypeAlias = Literal["open", "seal", "rebind"]
T = TypeVar("T")
One = TypeVar("One")


class _Subject(msgspec.Struct, frozen=True):
    type: str
    id: _Name
    properties: dict[str, Any] | None = None  # claims; msgspec knows no recursive types


class _Action(msgspec.Struct, frozen=True):
    name: Act


class _Properties(msgspec.Struct, frozen=True):
    policy: str
    keys_sha256: str = ""
    new_policy: str | None = None
    tenant: str | None = None


class _Resource(msgspec.Struct, frozen=True):
    type: Literal["tdf"]
    id: _Name
    properties: _Properties


class _Context(msgspec.Struct, frozen=True):
    kas_id: str | None = None
    key_sha256: str | None = None
    subject_token: str | None = None
    request: int | str | None = None
    purpose: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    ip: Annotated[str, msgspec.Meta(max_length=64)] | None = None


class _Options(msgspec.Struct, frozen=True):
    evaluations_semantic: Semantic = "execute_all"


class _Evaluation(msgspec.Struct, frozen=True):
    subject: _Subject | None = None
    action: _Action | None = None
    resource: _Resource | None = None
    context: _Context | None = None


class _Body(_Evaluation, frozen=True):
    evaluations: tuple[msgspec.Raw, ...] = ()  # each is read for itself
    options: _Options = _Options()


@dataclass(frozen=True, slots=True)
class Question:
    """May *subject* do *act* with the object *id*? Digests are base64url, policies base64 text."""

    subject: str
    claims: Mapping[str, object] = field(repr=False)  # as stated; nobody has verified them
    act: Act
    id: str
    policy: str
    new_policy: str | None
    keys_sha256: str
    tenant: str | None  # owner, as stated
    kas_id: str | None
    key_sha256: str | None
    subject_token: str | None = field(repr=False)
    request: int | str | None  # keeps the questions of one call apart: one decision each
    purpose: str | None
    ip: str | None


@dataclass(frozen=True, slots=True)
class Malformed:
    """An evaluation that is no question."""

    problem: str  # names the member; has text of the asker in it


@dataclass(frozen=True, slots=True)
class Questions(Generic[One]):
    """One call."""

    asked: tuple[One, ...]
    semantic: Semantic
    single: bool  # there were no `evaluations`: the top level is the question


def read_questions(
    text: bytes, *, several: bool, max_bytes: int, max_evaluations: int
) -> Questions[Question]:
    """Read the body of an evaluation, or of evaluations when *several*.

    Raises:
        QuestionError: Not strict JSON, a member is missing or malformed, or there are too many.
    """
    found = read_each(text, several=several, max_bytes=max_bytes, max_evaluations=max_evaluations)
    asked: list[Question] = []
    for one in found.asked:
        if isinstance(one, Malformed):
            raise QuestionError(one.problem)
        asked.append(one)
    return Questions(tuple(asked), found.semantic, found.single)


def read_each(
    text: bytes, *, several: bool, max_bytes: int, max_evaluations: int
) -> Questions[Question | Malformed]:
    """Read as `read_questions` does, each of several evaluations for itself.

    Raises:
        QuestionError: Not strict JSON, the top level is malformed, or there are too many.
    """
    try:
        body = decode(text, _Body, max_bytes=max_bytes)
    except FormatError as error:
        raise QuestionError(str(error)) from error
    if not several or not body.evaluations:
        return Questions((_question(body, body, ""),), "execute_all", single=True)
    if len(body.evaluations) > max_evaluations:
        raise QuestionError(f"evaluations: at most {max_evaluations}")
    asked = tuple(_each(one, body, place) for place, one in enumerate(body.evaluations))
    return Questions(asked, body.options.evaluations_semantic, single=False)


def _each(evaluation: msgspec.Raw, body: _Body, place: int) -> Question | Malformed:
    at = f"evaluations[{place}]"
    try:
        return _question(_EVALUATIONS.decode(evaluation), body, f"{at}.")
    except QuestionError as error:
        return Malformed(str(error))
    except msgspec.DecodeError as error:
        return Malformed(f"{at}: {error}")


def _question(own: _Evaluation, default: _Evaluation, at: str) -> Question:
    subject = _given(own.subject, default.subject, f"{at}subject")
    action = _given(own.action, default.action, f"{at}action")
    resource = _given(own.resource, default.resource, f"{at}resource")
    context = own.context or default.context or _Context()
    properties = resource.properties
    if (action.name == "rebind") != (properties.new_policy is not None):
        raise QuestionError(f"{at}resource.properties.new_policy: needed to rebind, and only then")
    _require_digest(properties.keys_sha256, f"{at}resource.properties.keys_sha256")
    _require_digest(context.key_sha256 or "", f"{at}context.key_sha256")
    return Question(
        subject=subject.id,
        claims=subject.properties or {},
        act=action.name,
        id=resource.id,
        policy=properties.policy,
        new_policy=properties.new_policy,
        keys_sha256=properties.keys_sha256,
        tenant=properties.tenant,
        kas_id=context.kas_id,
        key_sha256=context.key_sha256,
        subject_token=context.subject_token,
        request=context.request,
        purpose=context.purpose,
        ip=context.ip,
    )


def _given(own: T | None, default: T | None, at: str) -> T:
    value = own if own is not None else default
    if value is None:
        raise QuestionError(f"{at} is missing")
    return value


def _require_digest(text: str, at: str) -> None:
    """Empty (there is none), or base64url of 32 bytes."""
    try:
        if text and len(from_b64url(text)) != _SHA256_BYTES:
            raise QuestionError(f"{at}: expected 32 bytes")
    except FormatError as error:
        raise QuestionError(f"{at}: {error}") from error


_EVALUATIONS = msgspec.json.Decoder(_Evaluation)

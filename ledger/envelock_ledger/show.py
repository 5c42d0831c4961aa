"""Records as lines for people. Text of others is escaped; hidden fields stay hidden."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from envelock_formats import canonical
from envelock_formats.canonical import Json
from envelock_formats.printable import printable
from envelock_ledger.record import Record

_MICROSECONDS = 1_000_000
_SHORT = 12  # characters of an object id in a list
_HIDDEN = 4  # hex digits of a commitment, enough to tell two apart


def second(time_us: int) -> str:
    """UTC to the second: `2026-11-22 17:58:03Z`; the number itself beyond the calendar."""
    return _time(time_us, "%Y-%m-%d %H:%M:%SZ")


def minute(time_us: int) -> str:
    """UTC to the minute: `2026-11-22 17:58Z`."""
    return _time(time_us, "%Y-%m-%d %H:%MZ")


def hidden(commitment: str) -> str:
    """A hidden value, recognisable within one record only."""
    return f"hidden:{commitment[:_HIDDEN]}"


def line(record: Record) -> str:
    """Time, type, who (hidden), object, key, reason and request id; what is absent is left out."""
    envelope, fields = record.envelope, record.fields
    objects = [item for item in _list(fields.get("objs")) if isinstance(item, dict)]
    who = envelope.commitments.get("sub")
    parts = [
        f"{envelope.index}",
        second(envelope.sequenced_us),
        envelope.type,
        "" if who is None else hidden(who),
        _first(objects, "id")[:_SHORT],
        _first(objects, "kid"),
        _text(fields.get("rsn")),
        _text(fields.get("req")),
    ]
    return "  ".join(printable(part) for part in parts if part)


def full(record: Record) -> Iterator[str]:
    """Every field of a record, a line each; commitments as what they hide."""
    yield f"record   {record.envelope.index}"
    yield f"time     {second(record.envelope.sequenced_us)}"
    for name, value in record.fields.items():
        if name != "c":
            yield printable(f"{name:<8} {_text(value)}")
    for name, commitment in record.envelope.commitments.items():
        yield printable(f"{name:<8} {hidden(commitment)}")


def names_request(record: Record, request: str) -> bool:
    """Whether *request* is the record's id or its request id."""
    return request in (record.envelope.id, record.fields.get("req"))


def names_object(record: Record, objects: Iterable[str]) -> bool:
    """Whether the record is about one of *objects*, or about what came in its place."""
    wanted = set(objects)
    rows = [*_list(record.fields.get("objs")), *_list(record.fields.get("new"))]
    return any(item.get("id") in wanted for item in rows if isinstance(item, dict))


def _time(time_us: int, form: str) -> str:
    try:
        return datetime.fromtimestamp(time_us // _MICROSECONDS, UTC).strftime(form)
    except (OverflowError, ValueError, OSError):
        return f"{time_us} us"


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _first(objects: list[dict[str, Json]], name: str) -> str:
    text = _text(objects[0].get(name)) if objects else ""
    return text if len(objects) < 2 or not text else f"{text} (+{len(objects) - 1})"  # noqa: PLR2004 - one and more


def _text(value: Json) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else canonical.encode(value).decode()

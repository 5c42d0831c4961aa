"""What one KAS worker counts.

SECURITY: no label holds a subject, a tenant, an object or anything that a caller chose: labels are
words of this module and codes of problems, so their number is bounded.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from envelock_ledger.entry import Committed, Entry, Outcome, Repeated
from envelock_service.problem import STATUS

# What a refusal's reason may begin with; whatever else is `other`.
REASONS = frozenset(
    {
        "client",
        "decision",
        "entitlement",
        "expired",
        "key",
        "malformed",
        "moved",
        "object",
        "obligation",
        "operator",
        "policy",
        "rate",
        "replayed",
        "subject",
        "tenant",
    }
)
TYPES = frozenset(
    {
        "admin",
        "denied",
        "error",
        "issue",
        "key.lifecycle",
        "key.wraps",
        "policy.change",
        "rebind",
        "release",
        "subject.revoke",
    }
)
OTHER = "other"
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_US = 1_000_000


class _Body(msgspec.Struct, frozen=True):
    typ: str
    rsn: str = ""
    n: int = 1


_BODY = msgspec.json.Decoder(_Body)


class Meters:
    """The counters; one event loop writes them."""

    def __init__(self) -> None:
        self.records: dict[str, int] = {}  # committed by this worker, by type
        self.refusals: dict[str, int] = {}  # by class of reason
        self.retries = 0
        self.ledger: Mapping[str, int] = {}  # what its last probe told
        at = self.registry = CollectorRegistry()
        self.custody = _seconds("envelock_custody", "Time of a custody operation", at, "operation")
        self._operations: dict[str, Histogram] = {}
        self.custody_failures = _failures("envelock_custody", "Custody operations", at, "operation")
        self.append = _seconds("envelock_append", "Time until a record is durable", at)
        self.append_failures = _failures("envelock_append", "Appends of unknown outcome", at)
        self.pdp = _seconds("envelock_pdp", "Time of a question to the PDP", at)
        self.pdp_failures = _failures("envelock_pdp", "Questions without a decision", at)

    def operation(self, name: str) -> Histogram:
        """The histogram of one custody operation."""
        if (known := self._operations.get(name)) is None:
            known = self._operations[name] = self.custody.labels(name)
        return known

    def committed(self, entries: Sequence[Entry], outcomes: Sequence[Outcome]) -> None:
        """Count what the ledger took."""
        for entry, outcome in zip(entries, outcomes, strict=True):
            if isinstance(outcome, Repeated):
                self.retries += 1
            elif isinstance(outcome, Committed):
                self._record(_BODY.decode(entry.body))

    def _record(self, body: _Body) -> None:
        typ = body.typ if body.typ in TYPES else OTHER
        self.records[typ] = self.records.get(typ, 0) + 1
        if typ == "denied":
            reason = reason_class(body.rsn)
            self.refusals[reason] = self.refusals.get(reason, 0) + body.n


def reason_class(reason: str) -> str:
    """The first word of a reason, if it is one of ours."""
    word = reason.partition(":")[0].partition(" ")[0]
    return word if word in REASONS else OTHER


class timed:  # noqa: N801 it is used like a function, and a generator costs twice the time
    """Observe how long the block takes, however it ends."""

    __slots__ = ("_begun", "_histogram")

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram

    def __enter__(self) -> None:
        self._begun = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._histogram.observe(time.perf_counter() - self._begun)


class Tally:
    """A collector of numbers that are kept elsewhere.

    Args:
        meters: The worker's.
        unauthenticated: Requests that proved nobody, by code of the problem.
        policies: Epochs of the policies in force.
        clock: Unix seconds.
    """

    def __init__(
        self,
        meters: Meters,
        unauthenticated: Mapping[str, int],
        policies: Callable[[], Iterable[int]],
        clock: Callable[[], float],
    ) -> None:
        self._meters, self._unauthenticated = meters, unauthenticated
        self._policies, self._clock = policies, clock

    def collect(self) -> Iterator[Metric]:
        """Every family, for the registry."""
        meters, epochs = self._meters, list(self._policies())
        known = {code: n for code, n in self._unauthenticated.items() if code in STATUS}
        yield counted("envelock_records", "Records of this worker", meters.records, "type")
        yield counted("envelock_refusals", "Requests refused", meters.refusals, "reason")
        yield counted("envelock_unauthenticated", "Requests that proved nobody", known, "code")
        yield CounterMetricFamily("envelock_retries", "Releases answered again", meters.retries)
        yield _gauge("envelock_policies", "Tenants with a policy in force", len(epochs))
        yield _gauge("envelock_policy_epochs", "Sum of the policy epochs", sum(epochs))
        if meters.ledger:
            yield from _of_ledger(meters.ledger, self._clock())


def _of_ledger(told: Mapping[str, int], now: float) -> Iterator[Metric]:
    age = max(0.0, now - told["signed_us"] / _US)
    yield _gauge("envelock_ledger_records", "Size of the ledger", told["size"])
    yield _gauge("envelock_ledger_checkpoint_age_seconds", "Since the last checkpoint", age)
    yield _gauge("envelock_ledger_queued_bytes", "Records that wait", told["queued_bytes"])
    yield _gauge("envelock_ledger_free_bytes", "Room for records", told["free_bytes"])
    yield _gauge("envelock_ledger_anchor_free_bytes", "Room for anchors", told["anchor_free_bytes"])
    yield _gauge("envelock_ledger_rss_bytes", "Memory of its process", told["rss_bytes"])
    for name, text in (
        ("batches", "Batches committed since its start"),
        ("appended", "Entries in those batches"),
        ("faults", "Errors that closed its files"),
    ):
        yield CounterMetricFamily(f"envelock_ledger_{name}", text, told[name])


def counted(name: str, text: str, numbers: Mapping[str, int], label: str) -> Metric:
    """A counter for each value of *label*."""
    family = CounterMetricFamily(name, text, labels=[label])
    for value, number in sorted(numbers.items()):
        family.add_metric([value], number)
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _seconds(name: str, text: str, registry: CollectorRegistry, *labels: str) -> Histogram:
    return Histogram(f"{name}_seconds", text, labels, registry=registry, buckets=SECONDS)


def _failures(name: str, text: str, registry: CollectorRegistry, *labels: str) -> Counter:
    return Counter(f"{name}_failures", f"{text} that failed", labels, registry=registry)

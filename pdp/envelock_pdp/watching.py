"""What a decision point watches, and what it counts."""

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

from envelock_pdp import NotInForceError
from envelock_pdp.decide import Asked, Decided, Decider
from envelock_pdp.inforce import Policies
from envelock_service.health import Health, Part

POLICY, ISSUER = "policy", "issuer"
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
QUESTIONS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Meters:
    """The counters; one event loop writes them."""

    def __init__(self) -> None:
        at = self.registry = CollectorRegistry()
        self.seconds = Histogram(
            "envelock_decide_seconds", "Time of a call", registry=at, buckets=SECONDS
        )
        self.questions = Histogram(
            "envelock_decide_questions", "Questions of a call", registry=at, buckets=QUESTIONS
        )

    def follow(self, policies: Policies) -> None:
        """Tell of *policies*, by number: the names of tenants are in `/status`."""
        self.registry.register(_InForce(policies))


class MeteredDecider(Decider):
    """*inner*, with its calls counted."""

    def __init__(self, inner: Decider, meters: Meters) -> None:
        self._inner, self._meters = inner, meters

    def decide(self, asked: Sequence[Asked], *, until: bool | None = None) -> Decided:
        """As `Decider.decide`."""
        begun = time.perf_counter()
        try:
            return self._inner.decide(asked, until=until)
        finally:
            self._meters.seconds.observe(time.perf_counter() - begun)
            self._meters.questions.observe(len(asked))


def watched(policies: Policies, keys: Callable[[], Awaitable[None]]) -> Health:
    """The health of a decision point: every bundle in force, and the keys of the issuers."""

    async def in_force() -> None:
        if missing := policies.missing():
            raise NotInForceError(f"not in force: {', '.join(missing)}")
        if not policies.all():
            raise NotInForceError("there is no bundle")

    return Health([Part(POLICY, in_force), Part(ISSUER, keys)], time.time, time.monotonic)


class _InForce:
    """A collector: what is in force."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies

    def collect(self) -> Iterator[Metric]:
        """How many bundles are in force, how many are not, and the sum of their epochs."""
        found, missing = self._policies.all(), self._policies.missing()
        epochs = sum(one.epoch for one in found)
        yield GaugeMetricFamily("envelock_policies", "Bundles in force", len(found))
        yield GaugeMetricFamily("envelock_policies_missing", "Bundles not in force", len(missing))
        yield GaugeMetricFamily("envelock_policy_epochs", "Sum of the policy epochs", epochs)

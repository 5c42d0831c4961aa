"""How often somebody may ask."""

from envelock_service.buckets import Buckets


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def test_a_bucket_holds_its_burst_and_fills_again():
    """Three at once, then as many as have come since, never more than it holds."""
    clock = Clock()
    buckets = Buckets(2.0, 3.0, clock)
    first = [buckets.take("doctor") for _ in range(4)]
    clock.now = 1.0
    second = [buckets.take("doctor") for _ in range(3)]
    clock.now = 1000.0
    third = [buckets.take("doctor") for _ in range(4)]

    assert first == third == [True, True, True, False]
    assert second == [True, True, False]


def test_what_costs_more_than_is_left_is_worked_off():
    """No call is too large to be let in, and none is free."""
    clock = Clock()
    buckets = Buckets(1.0, 3.0, clock)
    admitted = buckets.take("doctor", 10)
    clock.now = 7.5
    owing = buckets.take("doctor")
    clock.now = 8.0

    assert (admitted, owing, buckets.take("doctor")) == (True, False, True)


def test_everybody_has_a_bucket_of_its_own():
    """One that is empty holds nobody else up."""
    buckets = Buckets(1.0, 1.0, Clock())

    assert [buckets.take("doctor"), buckets.take("doctor"), buckets.take("nurse")] == [
        True,
        False,
        True,
    ]

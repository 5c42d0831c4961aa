"""What does one decision cost, by the number of rules, and how many are signed in a second?

    python benchmarks/decide.py [--quick]

Microseconds of process time, median of repeats. `by id` has rules whose subject target is one id;
`by value` has `*` targets and one `Equals` each; `no index` has `*` targets and conditions that no
index can use. `whole` adds entitlement, context and reasons to `by id`. py-abac and Cedar (where
`cedarpy` is installed) decide the rules of `by id`, each with its policies and request parsed.
"""

import argparse
import asyncio
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from pdp.service import DOCTOR, item, running, write_bundle  # noqa: E402 the tests' own world
from pdp.world import NOON, bundle, facts, files, request  # noqa: E402 as above

from envelock_pdp.compile import compile_rules  # noqa: E402 as above
from envelock_pdp.evaluate import evaluate  # noqa: E402 as above
from envelock_pdp.oracle import py_abac_rules  # noqa: E402 as above
from envelock_pdp.rules import read_rules  # noqa: E402 as above

LARGE = 10_000  # rules; py-abac would take minutes
MAX_CALLS = 10_000
READABLE_NS = 200_000  # the process clock is coarse
CLAIMS = {**DOCTOR, "roles": ["doctor"], "team": "t7", "level": 5}
CONTEXT = {"time": {"hour": 12}, "purpose": "treatment"}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    sizes = (1, 100, 1000) if quick else (1, 100, 1000, 10_000)
    heads = ["by id", "by value", "no index", "whole", "py-abac", "cedar"]
    print(f"{'rules':>7} " + " ".join(f"{head:>8}" for head in heads))
    for size in sizes:
        print(f"{size:>7} " + " ".join(f"{cost:>8.1f}" for cost in _row(size)), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_signed(Path(folder), calls=20 if quick else 200))


def _row(size: int) -> list[float]:
    asked = facts(CLAIMS, context=CONTEXT, subject_id="doctor")
    documents = {shape: [_rule(shape, n) for n in range(size)] for shape in ("id", "value", "none")}
    repeats = 300 if size < LARGE else 30
    row = []
    for shape, listed in documents.items():
        rules = compile_rules(read_rules(listed, ()))
        assert [one.uid for one in rules.applying(asked)] == ["r0"], shape  # noqa: S101 the answer
        row.append(_microseconds(lambda rules=rules: rules.applying(asked), repeats))
    whole = bundle(*documents["id"])
    question = request("clearance=secret", claims=CLAIMS, purpose="treatment")
    row.append(_microseconds(lambda: evaluate(whole, question, NOON), repeats))
    row.append(float("nan"))
    if importlib.util.find_spec("py_abac") and size < LARGE:
        text = json.dumps(documents["id"]).encode()
        oracle = py_abac_rules(read_rules(documents["id"], ()), {"rules/all.json": text})
        row[-1] = _microseconds(lambda: oracle.applying(asked), 3)
    row.append(_cedar(size) if importlib.util.find_spec("cedarpy") else float("nan"))
    return row


def _cedar(size: int) -> float:
    """The rules of `by id` in Cedar's language, decided by Cedar."""
    import cedarpy  # noqa: PLC0415 a peer that need not be there

    policies = "".join(
        f'permit(principal == User::"{"doctor" if number == 0 else f"person-{number}"}", '
        'action == Action::"open", resource) when { '
        'principal.roles.containsAny(["doctor", "nurse"]) && context.hour >= 6 && '
        '["treatment", "emergency"].contains(context.purpose) };\n'
        for number in range(size)
    )
    parsed = cedarpy.PolicySet.from_str(policies)
    doctor = {"type": "User", "id": "doctor"}
    people = [{"uid": doctor, "attrs": {"roles": ["doctor"]}, "parents": []}]
    entities = cedarpy.Entities.from_json_str(json.dumps(people))
    asked = {
        "principal": 'User::"doctor"',
        "action": 'Action::"open"',
        "resource": 'Object::"o"',
        "context": {"hour": 12, "purpose": "treatment"},
    }

    def decide() -> object:
        return cedarpy.is_authorized(asked, parsed, entities)

    assert decide().allowed  # noqa: S101 the answer
    return _microseconds(decide, 300 if size < LARGE else 30)


def _rule(shape: str, number: int) -> dict[str, Any]:
    """Rule 0 applies, the others do not."""
    subject: dict[str, Any] = {"$.roles": {"condition": "AnyIn", "values": ["doctor", "nurse"]}}
    targets: dict[str, Any] = {}
    if shape == "id":
        targets = {"subject_id": "doctor" if number == 0 else f"person-{number}"}
    elif shape == "value":
        subject["$.team"] = {"condition": "Equals", "value": "t7" if number == 0 else f"x{number}"}
    else:
        subject = {
            "$.level": {"condition": "Gt", "value": 4 if number == 0 else 10 + number}
        } | subject
    context = {
        "$.time.hour": {"condition": "Gte", "value": 6},
        "$.purpose": {"condition": "IsIn", "values": ["treatment", "emergency"]},
    }
    rules = {"subject": subject, "context": context}
    return {"uid": f"r{number}", "effect": "allow", "targets": targets, "rules": rules}


def _microseconds(work: Callable[[], object], repeats: int) -> float:
    """Median process time of one call, over batches that last long enough to be read."""
    calls = 1
    while calls < MAX_CALLS:
        started = time.process_time_ns()
        for _ in range(calls):
            work()
        if time.process_time_ns() - started > READABLE_NS:
            break
        calls *= 4
    samples = []
    for _ in range(max(3, repeats // 10)):
        started = time.process_time_ns()
        for _ in range(calls):
            work()
        samples.append((time.process_time_ns() - started) / calls / 1000)
    return statistics.median(samples)


async def _signed(folder: Path, calls: int) -> None:
    """Questions of several callers a call over the Unix socket: a signed decision for each."""
    write_bundle(folder / "policies", files())
    async with running(folder) as pdp:
        people = [json.dumps({**DOCTOR, "sub": f"p{n}"}) for n in range(64)]
        for together in (1, 8, 64):
            asked = [item("o1", "clearance=secret", claims=people[n]) for n in range(together)]
            body = json.dumps({"evaluations": asked}).encode()
            started, spent = time.perf_counter(), time.process_time()
            for _ in range(calls):
                url = "http://pdp/access/v1/evaluations"
                headers = {"Content-Type": "application/json"}
                async with pdp.internal.post(url, data=body, headers=headers) as response:
                    await response.read()
            wall = time.perf_counter() - started
            cost = (time.process_time() - spent) / calls / together
            print(
                f"{together:>3} callers a call: {calls * together / wall:>7.0f} signed decisions/s,"
                f" {cost * 1e6:.0f} us of one core each, client included"
            )


if __name__ == "__main__":
    main()

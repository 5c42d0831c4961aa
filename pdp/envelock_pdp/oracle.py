"""py-abac as the engine of a bundle's rules: for authors who compare, and for tests.

Only rules are decided by it; entitlement and everything else stays ours. It knows no third answer,
so a condition that cannot be evaluated is not met, in denials too.

SECURITY: never a server's engine. It keeps state on shared objects, so threads mix up requests.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from envelock_formats.canonical import Json
from envelock_pdp import PdpError
from envelock_pdp.bundle import read_json
from envelock_pdp.compile import CompiledRule, Facts
from envelock_pdp.rules import Rule

_OURS = frozenset({"obligations", "anyone"})


class EngineMissingError(PdpError):
    """py-abac is not installed."""

    exit_code = 2
    code = "engine_missing"
    hint = "pip install 'envelock[policy]'"


@dataclass(frozen=True, slots=True)
class PyAbacRules:
    """The rules of a bundle as py-abac decides them. Not for use by two threads."""

    rules: tuple[Rule, ...]
    _policies: tuple[Any, ...]

    def applying(self, facts: Facts) -> Sequence[CompiledRule]:
        """The rules that py-abac finds to fit."""
        context = _context(facts)
        return [
            CompiledRule(place, rule.uid, rule.effect, rule.obligations, _never)
            for place, rule in enumerate(self.rules)
            if self._policies[place].fits(context)
        ]


def py_abac_rules(rules: tuple[Rule, ...], files: Mapping[str, bytes]) -> PyAbacRules:
    """Load *rules*, which were read from *files*, into py-abac.

    Raises:
        EngineMissingError: It is not installed.
    """
    written: dict[str, dict[str, Json]] = {}
    for path in sorted(path for path in files if path.startswith("rules/")):
        document = read_json(path, files[path])
        for item in document if isinstance(document, list) else [document]:
            if isinstance(item, dict):
                written[str(item["uid"])] = {
                    name: value for name, value in item.items() if name not in _OURS
                }
    policy = _policy_class()
    return PyAbacRules(rules, tuple(policy.from_json(written[rule.uid]) for rule in rules))


def _policy_class() -> Any:  # noqa: ANN401 py-abac has no types
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import warns of a dependency's next version
        try:
            from py_abac import Policy  # noqa: PLC0415 an optional dependency
        except ImportError as error:
            raise EngineMissingError("py-abac is not installed") from error
    return Policy


def _context(facts: Facts) -> Any:  # noqa: ANN401 py-abac has no types
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        from py_abac.context import EvaluationContext  # noqa: PLC0415 an optional dependency
        from py_abac.request import AccessRequest  # noqa: PLC0415 an optional dependency
    element = {
        name: {"id": getattr(facts, f"{name}_id"), "attributes": dict(getattr(facts, name))}
        for name in ("subject", "resource", "action")
    }
    return EvaluationContext(AccessRequest(**element, context=dict(facts.context)))


def _never(_facts: Facts) -> bool:
    return False

"""`envelock policy explain`: the explanation agrees with the decision, and reads well."""

import json
import shutil
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pdp.test_cli import Terminal
from pdp.world import NOON, bundle, files, request, rule

import envelock_policies
from envelock_formats.canonical import parse
from envelock_pdp import evaluate
from envelock_pdp.bundle import read_bundle
from envelock_pdp.cases import read_cases, run_cases
from envelock_pdp.cli import CaseUsageError, command
from envelock_pdp.explanation import ExplainedCondition, ExplainedRule, explain_request
from envelock_pdp.folder import find_bundles, read_all_files
from envelock_pdp.telling import as_object, told

BUNDLES = [
    path
    for name in envelock_policies.names()
    for path in find_bundles(envelock_policies.path(name))
]
VALUES: Any = st.sampled_from(["a", "b", 3, True, ["a"], ["a", "b"], {"a": 1}, None, 2.5])
CONDITIONS: Any = st.recursive(
    st.sampled_from(
        [
            {"condition": "Equals", "value": "a"},
            {"condition": "Equals", "value": "A", "case_insensitive": True},
            {"condition": "Gt", "value": 2},
            {"condition": "AnyIn", "values": ["a", "z"]},
            {"condition": "AllNotIn", "values": ["b"]},
            {"condition": "Exists"},
            {"condition": "IsEmpty"},
            {"condition": "EqualsAttribute", "ace": "subject", "path": "$.other"},
            {"condition": "EqualsObject", "value": {"a": 1}},
        ]
    ),
    lambda inner: st.one_of(
        st.builds(lambda one: {"condition": "Not", "value": one}, inner),
        st.builds(
            lambda name, many: {"condition": name, "values": many},
            st.sampled_from(["AllOf", "AnyOf"]),
            st.lists(inner, min_size=1, max_size=3),
        ),
    ),
    max_leaves=4,
)
BLOCKS: Any = st.lists(
    st.dictionaries(st.sampled_from(["$.x", "$.y.z", "$.other"]), CONDITIONS, min_size=1),
    min_size=1,
    max_size=3,
)

DENIED = """
cases/hours.json "temp at 03:00": deny, as expected

asked        temp@clinic wants to open 'case', which asks for clinic.example/clearance=internal
             at 2026-01-05 03:00:00Z, a Monday

entitlement  held           clinic.example/clearance=internal  hierarchy
             false            claim $.clearance in "secret"    is "internal", as of secret
             true             claim $.clearance in "internal"  is "internal"

rules        deny hours: applies, since it cannot be ruled out
               true           target action_id open                      is "open"
               true           subject $.roles AnyIn ["temp"]             is ["nurse", "temp"]
               false          either
               false            context $.time.hour Gte 20               is 3
               undefined        context $.purpose NotEquals "emergency"  is absent
               undefined      or
               true             context $.time.hour Lt 6                 is 3
               undefined        context $.purpose NotEquals "emergency"  is absent

decision     goes on        1 home tenant  clinic owns the object
             goes on        2 entitlement  every attribute asked for is held
             deny           3 denials      by hours
             not looked at  4 permits
             not looked at  5 dissem
             deny: rule: hours
"""


def all_of(answers: list) -> Any:
    """Kleene's and."""
    return False if False in answers else None if None in answers else True


def any_of(answers: list) -> Any:
    """Kleene's or."""
    return True if True in answers else None if None in answers else False


def joined(condition: ExplainedCondition) -> Any:
    """The answer that the parts of a condition amount to; its own where it has none."""
    parts = [joined(part) for part in condition.parts]
    match condition.name:
        case "Not":
            return None if parts[0] is None else not parts[0]
        case "AllOf":
            return all_of(parts)
        case "AnyOf":
            return any_of(parts)
    return condition.answer


def amounts_to(found: ExplainedRule) -> Any:
    """The answer that what is shown of a rule amounts to."""
    answers = [target.matches for target in found.targets]
    for element in found.elements:
        blocks = [all_of([joined(condition) for condition in block]) for block in element.blocks]
        answers.append(any_of(blocks))
    return all_of(answers)


class TestAgreement:
    """What is shown is what decides."""

    @pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.name)
    def test_with_every_shipped_case(self, path):
        """Decision, rules that apply, and the step that ends it."""
        read = read_all_files(path)
        policies = read_bundle(read)
        for result in run_cases(policies, read_cases(policies, read)):
            found = explain_request(policies, result.case.request, result.case.now)

            assert found.outcome == result.outcome
            applying = {rule.uid for rule in found.rules if rule.applies}
            if found.steps[0].verdict != "deny":
                assert applying == {*result.outcome.permits, *result.outcome.denials}
            assert all(amounts_to(rule) is rule.answer for rule in found.rules)
            verdicts = [step.verdict for step in found.steps]
            assert (verdicts[-1] == "permit") is result.outcome.permit
            assert verdicts.count("deny") == (not result.outcome.permit)

    @given(BLOCKS, st.sampled_from(["allow", "deny"]), VALUES, VALUES, VALUES)
    def test_with_any_rule_about_anything(self, blocks, effect, one, two, other):
        """Conditions amount to the rule's answer, and that to whether it applies."""
        policies = bundle(rule("r", effect, subject=blocks))
        claims = {"x": one, "y": {"z": two}, "other": other}
        asked = request("clearance=secret", claims={k: v for k, v in claims.items() if v != "b"})
        [found] = explain_request(policies, asked, NOON).rules
        outcome = evaluate.evaluate(policies, asked, NOON)

        assert amounts_to(found) is found.answer
        assert found.applies is ("r" in (*outcome.permits, *outcome.denials))

    @pytest.mark.parametrize(
        ("changes", "given", "ends", "said"),
        [
            ({}, {"tenant": "globex"}, "home tenant", "does not share with globex"),
            ({"head": 'sharing = ["globex"]\n'}, {"tenant": "globex"}, "entitlement", "clearance"),
            ({}, {}, "entitlement", "not held: clearance"),
            ({"required": True}, {"claims": {"clearance": "secret"}}, "permits", "required"),
            ({}, {"claims": {"clearance": "secret"}, "dissem": ("eve",)}, "dissem", "eve"),
        ],
    )
    def test_the_step_that_denies_is_the_one_that_decides(self, changes, given, ends, said):
        """Each ground of its own, and nothing after it is looked at."""
        policies = read_bundle(files(**changes))
        found = explain_request(policies, request("clearance=secret", **given), NOON)
        names = [step.name for step in found.steps]
        [denying] = [step for step in found.steps if step.verdict == "deny"]

        assert not found.outcome.permit
        assert (denying.name, said in denying.said) == (ends, True)
        after = found.steps[names.index(ends) + 1 :]
        assert all((step.verdict, step.said) == ("not looked at", "") for step in after)

    def test_without_attributes_a_permit_is_needed(self):
        """And a rule that gives it brings its obligations."""
        allow = rule("everyone", subject={"$.sub": {"condition": "Exists"}}) | {
            "obligations": ["watermark"]
        }
        alone = explain_request(bundle(), request(), NOON)
        found = explain_request(bundle(allow), request(claims={"sub": "doctor"}), NOON)

        assert alone.steps[3].said == "no allow applies, and without attributes one is needed"
        assert (found.outcome.permit, found.outcome.obligations) == (True, ("watermark",))
        assert found.steps[-1].verdict == "permit"


def _run(*arguments, as_json=False):
    terminal = Terminal(json=as_json)
    try:
        code = command.main(["explain", *map(str, arguments)], obj=terminal, standalone_mode=False)
    except click.exceptions.Exit as left:
        code = left.exit_code
    return code or 0, terminal


class TestReading:
    """What an author sees."""

    def test_a_denial_in_full(self):
        """Values, answers, and how they combine."""
        code, terminal = _run("clinic", "--case", "temp at 03:00", "--rule", "hours")

        assert code == 0
        assert "\n".join(terminal.lines) == DENIED.strip()

    def test_a_permit_with_obligations(self):
        """The last step permits, and what comes with it is said."""
        allow = rule("r", subject={"$.sub": {"condition": "Exists"}}) | {"obligations": ["log"]}
        lines = lines_of(
            allow, {"name": "n", "claims": {"sub": "a", "tenant": "clinic"}, "expect": "permit"}
        )

        assert lines[-4:] == [
            "             permit         6 decision     nothing denied it",
            "             permit: rule: r",
            "             obligations: log",
            "             the KAS can see to none of them, so it releases nothing",
        ]

    @pytest.mark.parametrize(
        ("condition", "claims", "shown"),
        [
            ({"condition": "Gt", "value": 2}, {"x": "a"}, 'is "a", which it cannot judge'),
            ({"condition": "Gt", "value": 2}, {}, "is absent"),
            ({"condition": "Exists"}, {"x": 1}, "is 1"),
            ({"condition": "Equals", "value": "A", "case_insensitive": True}, {"x": "a"},
             'Equals "A" in any case'),
            ({"condition": "EqualsAttribute", "ace": "resource", "path": "$.tenant"}, {"x": "a"},
             'EqualsAttribute resource $.tenant  is "a", the other is "clinic"'),
            ({"condition": "Not", "value": {"condition": "Exists"}}, {"x": 1},
             "  subject $.x Exists"),
        ],
    )  # fmt: skip
    def test_what_was_found_is_said(self, condition, claims, shown):
        """Absent, of another type, compared with another attribute, inside another condition."""
        case = {"name": "n", "claims": {"sub": "a", "tenant": "clinic"} | claims, "expect": "deny"}
        lines = lines_of(rule("r", subject={"$.x": condition}), case)

        assert any(shown in line for line in lines)

    def test_what_is_out_of_reach_is_said(self):
        """Something above the value is no object."""
        case = {"name": "n", "claims": {"sub": "a", "tenant": "clinic", "x": 1}, "expect": "deny"}
        lines = lines_of(rule("r", subject={"$.x.y": {"condition": "Exists"}}), case)

        assert any("is out of reach" in line for line in lines)

    def test_an_attribute_that_nothing_grants(self):
        """Not defined, or without a mapping: said, not only denied."""
        read = files()
        read["mappings.json"] = b"[]"
        read["cases/c.json"] = json.dumps(
            {"name": "n", "claims": {"sub": "a", "tenant": "clinic"}, "expect": "deny",
             "attrs": ["clearance=secret", "clinic.example/other=1"]}
        ).encode()  # fmt: skip
        lines = told_of(read)

        assert any("no mapping grants it" in line for line in lines)
        assert any("clinic.example/other=1" in line and "not defined" in line for line in lines)

    def test_an_answer_that_was_not_expected(self):
        """The first line says so: another decision, or another reason."""
        allow = rule("r", subject={"$.sub": {"condition": "Exists"}})
        case = {"name": "n", "claims": {"sub": "a", "tenant": "clinic"}}
        other = lines_of(allow, case | {"expect": "deny"})
        reason = lines_of(allow, case | {"expect": "permit", "because": ["rule: x"]})

        assert other[0] == 'cases/c.json "n": permit, where deny was expected'
        assert reason[0] == 'cases/c.json "n": permit, as expected, but not because of "rule: x"'

    def test_a_long_value_is_cut(self):
        """One claim does not fill the terminal."""
        case = {"name": "n", "claims": {"sub": "a", "tenant": "clinic", "x": "y" * 500},
                "expect": "deny"}  # fmt: skip
        lines = lines_of(rule("r", subject={"$.x": {"condition": "Exists"}}), case)

        assert all(len(line) < 200 for line in lines)


class TestChoosing:
    """Which case is meant."""

    @pytest.fixture
    def broken(self, tmp_path):
        """The clinic with a rule that is wrong in one place."""
        folder = shutil.copytree(envelock_policies.path("clinic"), tmp_path / "clinic")
        hours = folder / "rules" / "hours.json"
        hours.write_text(hours.read_text().replace('"value": 6', '"value": 2'))
        return folder

    def test_without_a_name_it_is_every_case_that_fails(self, broken):
        """The next command after a failed test."""
        code, terminal = _run(broken)

        assert code == 0
        assert terminal.lines[0] == (
            'cases/hours.json "temp at 03:00": permit, where deny was expected'
        )
        assert [case["name"] for case in terminal.value["cases"]] == ["temp at 03:00"]

    def test_when_none_fails_it_says_how_to_name_one(self):
        """With a line to copy."""
        _, terminal = _run("clinic")

        assert terminal.lines == [
            'all 30 cases pass; explain one with --case "doctor opens secret"'
        ]

    def test_a_part_of_a_name_will_do(self):
        """When it is the only one; the whole name always does."""
        _, part = _run("clinic", "--case", "IN AN EMERG")
        _, whole = _run("clinic", "--case", "temp at 22:00")

        assert "temp at 22:00 in an emergency" in part.lines[0]
        assert '"temp at 22:00"' in whole.lines[0]

    @pytest.mark.parametrize(
        ("arguments", "message", "hint"),
        [
            (("--case", "temp"), "4 cases are called 'temp'", '"temp at 03:00"'),
            (("--case", "zzz"), "no case is called 'zzz'", '"doctor opens secret"'),
            (("--case", "temp at noon", "--rule", "x"), "no rule is called 'x'", "hours"),
        ],
    )
    def test_what_is_not_there_is_told_with_what_is(self, arguments, message, hint):
        """Exit 2, and the names."""
        with pytest.raises(CaseUsageError) as caught:
            _run("clinic", *arguments)

        assert (str(caught.value), caught.value.exit_code) == (message, 2)
        assert hint in caught.value.hint

    def test_in_a_folder_of_bundles_the_bundle_is_named(self):
        """A case of one of them, decided by its own bundle."""
        _, terminal = _run("saas", "--case", "gil supports apollo from the office")

        assert terminal.lines[0].startswith("acme: cases/support.json")
        assert terminal.value["cases"][0]["bundle"] == "acme"

    def test_every_shipped_case_has_an_explanation_in_json(self):
        """It is plain JSON, and says the same."""
        for path in BUNDLES:
            read = read_all_files(path)
            policies = read_bundle(read)
            for result in run_cases(policies, read_cases(policies, read)):
                found = explain_request(policies, result.case.request, result.case.now)
                value = parse(json.dumps(as_object(result, found)).encode(), max_depth=64)

                assert value["decision"] == ("permit" if result.outcome.permit else "deny")
                assert value["passed"] is True
                assert len(value["rules"]) == len(policies.rules.rules)


def lines_of(one: dict[str, Any], case: dict[str, Any]) -> list[str]:
    """The explanation of a case under a bundle with one rule."""
    return told_of(files(one) | {"cases/c.json": json.dumps(case).encode()})


def told_of(read: dict[str, bytes]) -> list[str]:
    """The explanation of the only case of a bundle."""
    policies = read_bundle(read)
    [result] = run_cases(policies, read_cases(policies, read))
    found = explain_request(policies, result.case.request, result.case.now)
    json.dumps(as_object(result, found))
    return told(result, found)

"""The shipped bundles decide every one of their cases, and their cases try every rule."""

import pytest

import envelock_policies
from envelock_pdp.bundle import read_bundle
from envelock_pdp.cases import never_decided, read_cases, read_people, run_cases
from envelock_pdp.evaluate import evaluate
from envelock_pdp.folder import find_bundles, read_all_files

BUNDLES = ["clinic", "coalition/north", "coalition/south", "saas/acme", "saas/globex"]


def _load(name):
    content = read_all_files(envelock_policies.path(name))
    bundle = read_bundle(content)
    return bundle, content, run_cases(bundle, read_cases(bundle, content))


@pytest.mark.parametrize("name", BUNDLES)
def test_every_case_passes(name):
    """At least twelve cases, all of them as expected."""
    _, _, results = _load(name)

    assert [result.case.name for result in results if not result.passed] == []
    assert len(results) >= 12


@pytest.mark.parametrize("name", BUNDLES)
def test_every_rule_decides_and_both_outcomes_occur(name):
    """No rule is without a case."""
    bundle, _, results = _load(name)

    assert never_decided(bundle, results) == ()
    assert {result.outcome.permit for result in results} == {True, False}


@pytest.mark.parametrize("name", BUNDLES)
def test_people_are_of_the_bundles_world(name):
    """An operator with its scope and an auditor are everywhere."""
    _, content, _ = _load(name)
    people = read_people(content["people.json"])

    assert people["operator"]["scope"] == "envelock:keys"
    assert "auditor" in people


def test_the_first_try_works_at_any_hour():
    """The doctor opens secret at every hour of a week, and the accountant never does."""
    bundle, _, results = _load("clinic")
    asked = {result.case.name: result.case.request for result in results}

    for hour in range(7 * 24):
        now = 1_767_571_200 + 3600 * hour
        doctor = evaluate(bundle, asked["doctor opens secret"], now)
        accountant = evaluate(bundle, asked["accountant opens secret"], now)

        assert doctor.permit
        assert (accountant.permit, accountant.reason) == (False, "entitlement: clearance")


def test_names_what_is_shipped():
    """`saas` is a folder of two bundles, one for each tenant."""
    found = find_bundles(envelock_policies.path("saas"))

    assert envelock_policies.names() == ("clinic", "coalition", "saas")
    assert [path.name for path in found] == ["acme", "globex"]


@pytest.mark.parametrize(
    "name", ["", "nothing", "..", "../envelock_policies", "clinic/rules", "/etc"]
)
def test_refuses_a_name_that_is_not_shipped(name):
    """A name cannot leave the folder of shipped bundles."""
    with pytest.raises(LookupError):
        envelock_policies.path(name)

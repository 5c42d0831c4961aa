"""`envelock policy test`, as an author sees it."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import click
import pytest

import envelock_policies
from envelock_pdp import BundleError
from envelock_pdp.cli import command


@dataclass
class Terminal:
    """The root command's session, keeping what it was given."""

    json: bool = False
    value: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def emit(self, value: dict[str, Any], lines: Iterable[str]) -> None:
        """Keep both forms."""
        self.value, self.lines = value, list(lines)


@pytest.fixture
def clinic(tmp_path):
    """A copy of the clinic's bundle, to be broken."""
    return shutil.copytree(envelock_policies.path("clinic"), tmp_path / "clinic")


def _run(*arguments):
    terminal = Terminal()
    try:
        code = command.main(["test", *map(str, arguments)], obj=terminal, standalone_mode=False)
    except click.exceptions.Exit as left:
        code = left.exit_code
    return code or 0, terminal


def test_a_bundle_that_decides_as_expected():
    """One line, and exit 0."""
    code, terminal = _run("clinic")

    assert (code, terminal.lines) == (
        0,
        ["30 of 30 cases pass; 6 of 6 rules decided a case"],
    )


def test_a_failed_case_is_explained(clinic):
    """What was expected and how it came otherwise; a rule without a case is named; exit 1."""
    hours = clinic / "rules" / "hours.json"
    hours.write_text(hours.read_text().replace('"value": 6', '"value": 2'))
    (clinic / "cases" / "research.json").unlink()

    code, terminal = _run(clinic)

    assert code == 1
    assert terminal.lines == [
        'FAIL cases/hours.json "temp at 03:00": expected deny, got permit',
        (
            "     entitlement clearance=internal yes;"
            " hours, laboratory, own-record and 3 more did not apply"
        ),
        "27 of 28 cases pass; 5 of 6 rules decided a case (never: research)",
    ]
    assert terminal.value["bundles"][0]["failed"][0]["expected"] == "deny"
    json.dumps(terminal.value)


def test_another_reason_than_expected_fails(clinic):
    """The right decision for another reason is not what the author expects."""
    cases = clinic / "cases" / "hours.json"
    cases.write_text(cases.read_text().replace("rule: hours", "rule: night"))

    code, terminal = _run(clinic)

    assert code == 1
    assert terminal.lines[0] == (
        'FAIL cases/hours.json "temp at 03:00": deny as expected,'
        ' but because of "rule: hours", not of "rule: night"'
    )


def test_a_malformed_bundle_is_exit_4(clinic):
    """File, place, and what was probably meant."""
    hours = clinic / "rules" / "hours.json"
    hours.write_text(hours.read_text().replace('"Gte"', '"Gtee"'))

    with pytest.raises(BundleError) as caught:
        _run(clinic)

    assert str(caught.value) == (
        "rules/hours.json /0/rules/context/0/$.time.hour:"
        ' unknown condition "Gtee" (did you mean "Gte"?)'
    )
    assert caught.value.exit_code == 4


def test_an_unknown_bundle_names_the_shipped_ones():
    """Neither a folder nor a shipped name."""
    with pytest.raises(BundleError) as caught:
        _run("no-such-bundle")

    assert caught.value.hint == "shipped bundles: clinic, coalition, saas"


def test_a_folder_of_bundles_is_tried_whole():
    """Each line says which bundle it is about."""
    code, terminal = _run("saas")

    assert code == 0
    assert [line.split(":")[0] for line in terminal.lines] == ["acme", "globex"]


def test_py_abac_shows_where_it_differs():
    """The second engine decides the same cases; its known faults fail three of them."""
    pytest.importorskip("objectpath")
    code, terminal = _run("clinic", "--engine", "py-abac")

    assert code == 1
    assert [line.split('"')[1] for line in terminal.lines if line.startswith("FAIL")] == [
        "temp at 03:00",
        "technician in the laboratory, address written as IPv6",
        "researcher without a purpose",
    ]

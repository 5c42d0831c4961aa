"""docs/protocol.md says of errors and routes what the servers do."""

import re
from pathlib import Path

import pytest

from envelock_kas.http import PROBLEMS
from envelock_kas.opentdf import connect
from envelock_service.problem import STATUS

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "protocol.md").read_text("utf-8")
ROW = re.compile(r"^\| `(\w+)` \| (\d{3}) \| `(\w+)` \|", re.MULTILINE)
RAISED = re.compile(r'Problem\(\s*"(\w+)"')
ROUTE = re.compile(r'(add_get|add_post|Method)\(\s*f?"([^"]+)"')
SERVERS = (
    "kas/envelock_kas/http.py",
    "kas/envelock_kas/operators.py",
    "kas/envelock_kas/opentdf/access.py",
    "kas/envelock_kas/opentdf/attributes.py",
    "kas/envelock_kas/opentdf/authorization.py",
    "kas/envelock_kas/opentdf/discovery.py",
    "pdp/envelock_pdp/http.py",
)


def raised() -> set[str]:
    """The codes that the servers answer with."""
    texts = [
        path.read_text("utf-8")
        for room in ("kas", "pdp", "service")
        for path in (ROOT / room).rglob("*.py")
    ]
    return {code for text in texts for code in RAISED.findall(text)} | set(PROBLEMS.values())


def test_every_error_is_on_the_page_with_its_status():
    """Code, status and the word of Connect, as the tables of the servers have them."""
    rows = {code: (int(status), word) for code, status, word in ROW.findall(TEXT)}
    codes = connect._CODES  # noqa: SLF001 the one table

    assert raised() <= rows.keys()
    assert rows == {code: (STATUS[code], codes[STATUS[code]]) for code in rows}


@pytest.mark.parametrize("server", SERVERS)
def test_every_route_is_on_the_page(server: str):
    """No server answers at a path that is not described."""
    found = ROUTE.findall((ROOT / server).read_text("utf-8"))
    assert found

    for _, path in found:
        plain = path.replace("{path}", "PATH").replace("{base}", "")
        shown = plain.partition("/{change")[0]
        assert shown in TEXT, path


def test_the_words_that_stock_clients_match_on_are_on_the_page():
    """Each phrase of the answers, to the letter."""
    for words in connect._WORDS.values():  # noqa: SLF001 the one table
        code, _, described = words.partition(" ")
        assert f"rpc error: code = {code} {described}" in TEXT or f"{code} {described}" in TEXT

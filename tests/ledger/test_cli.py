"""`envelock ledger` as people type it, on a live ledger, a stopped one and a copy."""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from ledger.test_process import running, stop
from ledger.world import body, entry, hiding

from envelock_ledger import cli
from envelock_ledger.errors import LedgerError
from envelock_ledger.remote import LedgerClient


@dataclass(slots=True)
class Console:
    """The console of the root command, in little."""

    data: Path
    profile: str | None = None
    json: bool = False

    def emit(self, value: dict[str, object], lines: Iterable[str]) -> None:
        """Print for people or for programs."""
        for text in [json.dumps(value)] if self.json else lines:
            click.echo(text)

    def object_ids(self, path: Path) -> list[str]:
        """Object ids of one sealed file."""
        return ["sha256:4be1"] if path.name == "q3.tdf" else []


@dataclass(slots=True)
class Shell:
    """Runs `envelock ledger` on one data directory."""

    data: Path
    key: str

    def run(self, *arguments: object, as_json: bool = False, profile: str | None = None) -> Result:
        """Invoke one command line."""
        return CliRunner().invoke(
            cli.command, [str(a) for a in arguments], obj=Console(self.data, profile, as_json)
        )

    def lines(self, *arguments: object) -> list[str]:
        """Lines of a command that succeeds."""
        result = self.run(*arguments)
        assert result.exit_code == 0, (result.output, result.exception)
        return result.output.splitlines()

    def error(self, *arguments: object, **options: object) -> LedgerError:
        """The error of a command that fails."""
        result = self.run(*arguments, **options)
        assert isinstance(result.exception, LedgerError), (result.output, result.exception)
        return result.exception


RELEASE = {
    "objs": [{"id": "sha256:4be1", "kid": "clinic:records:v1", "pol": "ef"}],
    "tn": "clinic",
}


async def write(data: Path) -> None:
    """A few records as a key server writes them."""
    client = LedgerClient(data / "run" / "ledger-kas.sock")
    opened = hiding("r-1", sub="ann")
    await client.append(
        [
            opened,
            entry(id="r-2", req="q-2", **RELEASE),
            entry(id="r-3", req="q-3", typ="denied", rsn="entitlement: clearance", tn="clinic"),
            entry(id="r-4", req="q-4\u202e\x1b[31m", rsn="a\nb", tn="clinic"),
            replace(entry(), body=body(id="r-5", req="q-2", typ="retry", tn="clinic")),
        ]
    )
    await client.aclose()


@pytest.fixture(params=["live", "stopped"], scope="module")
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A ledger of six records, its process alive or stopped; tests only read it."""
    data = tmp_path_factory.mktemp("data")
    with running(data) as (process, ready):
        asyncio.run(write(data))
        if request.param == "stopped":
            stop(process)
        yield Shell(data, str(ready["ledger_key"]))


def test_verify_says_what_holds_and_what_it_cannot_tell(shell):
    """The lines of the transcript, on the ledger of the data directory."""
    lines = shell.lines("verify", "--ledger-key", shell.key)

    assert lines[0].startswith("ok    records 0-5: leaves, chain, root ")
    assert lines[0].endswith("..., 2 tenant chains")
    assert lines[1].startswith("ok    checkpoint of 20")
    assert lines[1].endswith(f"Z, signed by {shell.key.split('+')[1]}")
    assert lines[2] == (
        "open  not shown: later records; that others got this same log; hidden subjects"
    )


def test_verify_takes_the_key_from_a_profile(shell):
    """The pinned key of a profile is used; two that differ need a choice."""
    profiles = shell.data / "profiles"
    profiles.mkdir()
    (profiles / "ann.toml").write_text(f'ledger_key = "{shell.key}"\n')
    (profiles / "bob.toml").write_text('name = "bob"\n')
    good = shell.lines("verify")
    other = shell.key.replace("envelock-", "envelock-")[:-4] + "AAA="
    (profiles / "eve.toml").write_text(f'ledger_key = "{other}"\n')

    undecided = shell.error("verify")
    chosen = shell.run("verify", profile="ann")
    shutil.rmtree(profiles)

    assert len(good) == 3
    assert undecided.exit_code == 2
    assert chosen.exit_code == 0


def test_verify_without_a_pinned_key_says_so(shell):
    """The log's own word for its key is taken only for one's own ledger, and named."""
    lines = shell.lines("verify")

    assert lines[-1].startswith("open  not shown: whose key this is")


def test_verify_as_json_is_one_object(shell):
    """For programs: one JSON line."""
    value = json.loads(shell.run("verify", "--ledger-key", shell.key, as_json=True).output)

    assert value["ok"] is True
    assert value["size"] == 6
    assert len(value["root"]) == 64
    assert len(value["not_shown"]) == 1


def test_show_lists_records(shell):
    """Time, type, who, object, key, reason and request; hidden fields hidden, text escaped."""
    lines = shell.lines("show")
    parts = [line.split("  ") for line in lines]

    assert [part[0] for part in parts] == ["0", "1", "2", "3", "4", "5"]
    assert parts[1][2] == "release"
    assert parts[1][3].startswith("hidden:")
    assert len(parts[1][3]) == len("hidden:4be1")
    assert parts[2][2:] == ["release", "sha256:4be1", "clinic:records:v1", "q-2"]
    assert parts[3][2:] == ["denied", "entitlement: clearance", "q-3"]
    assert parts[4][2:] == ["release", "a\\u{a}b", "q-4\\u{202e}\\u{1b}[31m"]
    assert "ann" not in "".join(lines)


@pytest.mark.parametrize("which", ["3", "q-3", "r-3"])
def test_show_finds_one_record(shell, which):
    """By index, by request id, by record id: in full, so that a denial can be explained."""
    lines = shell.lines("show", which)

    assert "record   3" in lines
    assert "rsn      entitlement: clearance" in lines


def test_show_finds_every_record_of_a_request(shell):
    """A request that was retried has two records."""
    lines = shell.lines("show", "q-2")

    assert [line for line in lines if line.startswith("record")] == ["record   2", "record   5"]


def test_show_hides_what_is_hidden(shell):
    """A full record shows that there is a subject, not who it is."""
    assert [line for line in shell.lines("show", "1") if line.startswith("sub      hidden:")]
    assert "ann" not in shell.run("show", "1", as_json=True).output


def test_show_says_when_there_is_none(shell):
    """An unknown request is exit code 2 with something to do."""
    error = shell.error("show", "q-99")

    assert (error.exit_code, bool(error.hint)) == (2, True)
    assert shell.error("show", "99").exit_code == 2


def test_a_proof_stands_alone(shell, tmp_path):
    """What `prove` prints is a receipt that `verify` accepts anywhere."""
    result = shell.run("prove", "2")
    (tmp_path / "two.tlog-proof").write_text(result.output)

    lines = shell.lines("verify", tmp_path / "two.tlog-proof", "--ledger-key", shell.key)

    assert lines[0].startswith("ok    record 2 of 6: leaf, path, root ")
    assert lines[-1].startswith("open  not shown: all other records; ")
    assert shell.error("prove", "99").exit_code == 2


def test_a_spoilt_receipt_is_exit_6(shell, tmp_path):
    """A receipt for another index fails, in one line."""
    text = shell.run("prove", "2").output
    (tmp_path / "bad").write_text(text.replace("index 2", "index 3"))

    result = shell.run("verify", tmp_path / "bad", "--ledger-key", shell.key)

    assert result.exit_code == 6
    assert result.output.splitlines()[0].startswith("FAIL  ")


def test_a_snapshot_serves_every_command(shell, tmp_path):
    """An auditor needs the copy and the key, and no server."""
    copy = tmp_path / "nov.ledger"
    wrote = shell.lines("snapshot", copy)
    away = Shell(tmp_path / "elsewhere", shell.key)

    assert wrote[0].startswith(f"wrote {copy}")
    assert len(away.lines("verify", copy, "--ledger-key", shell.key)) == 3
    assert away.lines("show", "--from", copy) == shell.lines("show")
    assert away.run("prove", "2", "--from", copy).output == shell.run("prove", "2").output
    assert away.run("checkpoint", "--from", copy).output == shell.run("checkpoint").output
    assert away.error("verify", copy).exit_code == 2
    assert shell.error("snapshot", copy).exit_code == 2


def test_verify_since_an_earlier_checkpoint(shell, tmp_path):
    """A kept checkpoint shows that nothing was removed or rewritten; a receipt has one too."""
    (tmp_path / "sep.checkpoint").write_text(shell.run("checkpoint").output)
    (tmp_path / "receipt").write_text(shell.run("prove", "1").output)
    (tmp_path / "noise").write_text("noise")

    for name in ("sep.checkpoint", "receipt"):
        lines = shell.lines("verify", "--ledger-key", shell.key, "--since", tmp_path / name)
        assert f"ok    extends {name} (6 records): nothing removed or rewritten" in lines
    options = ("verify", "--ledger-key", shell.key, "--since")
    assert shell.error(*options, tmp_path / "noise").exit_code == 6
    assert shell.error(*options, tmp_path / "none").exit_code == 2


def test_a_tampered_copy_is_exit_6(shell, tmp_path):
    """The transcript's line, and the exit code."""
    copy = tmp_path / "bad.ledger"
    shell.run("snapshot", copy)
    connection = sqlite3.connect(copy)
    connection.execute("DROP TRIGGER entry_unchanged")
    connection.execute(
        "UPDATE entry SET body = CAST(replace(body, 'q-3', 'q-4') AS BLOB) WHERE idx = 3"
    )
    connection.commit()
    connection.close()

    result = shell.run("verify", copy, "--ledger-key", shell.key)

    assert result.exit_code == 6
    assert result.output.splitlines()[0] == (
        "FAIL  record 3, column body: does not match its leaf; 0-2 verify"
    )
    assert result.output.splitlines()[-1].startswith("open  not shown: ")


def test_show_filters_by_a_sealed_file(shell, tmp_path):
    """Only records that name one of the file's object ids."""
    lines = shell.lines("show", "--file", tmp_path / "q3.tdf")

    assert [line.split("  ")[0] for line in lines] == ["2"]


def test_nothing_to_read_is_said(tmp_path):
    """Neither a data directory without a ledger nor a missing file is a traceback."""
    away = Shell(tmp_path, "log+a+b")

    assert away.error("show").exit_code == 2
    assert away.error("show", "--from", tmp_path / "none").exit_code == 2
    assert away.error("verify", tmp_path / "none").exit_code == 2


def test_a_live_database_is_no_copy(tmp_path):
    """A copied data file without its checkpoint is refused, with the way to make a copy."""
    with running(tmp_path) as (process, ready):
        stop(process)
    shutil.copy(tmp_path / "ledger" / "ledger.db", tmp_path / "copied")

    error = Shell(tmp_path, str(ready["ledger_key"])).error("show", "--from", tmp_path / "copied")

    assert "snapshot" in str(error.hint)


def test_a_lock_without_a_socket_is_said(tmp_path):
    """Somebody holds the ledger and does not answer: never a second opener."""
    with running(tmp_path) as (process, ready):
        (tmp_path / "run" / "ledger-read.sock").unlink()
        error = Shell(tmp_path, str(ready["ledger_key"])).error("show")
        stop(process)

    assert error.exit_code == 5
    assert "owns the ledger" in str(error)


def test_help_is_there_for_everything():
    """Every command explains itself."""
    for arguments in [[], ["verify"], ["show"], ["prove"], ["checkpoint"], ["snapshot"]]:
        result = CliRunner().invoke(cli.command, [*arguments, "--help"])
        assert result.exit_code == 0
        assert "Usage:" in result.output

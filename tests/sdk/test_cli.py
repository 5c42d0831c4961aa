"""The command line without a server: options, help, errors, what is loaded and what is printed."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field

import click
import pytest
from click.testing import CliRunner
from sdk.hostile import CONFIGURATION, answering, as_json, kas
from sdk.sealing_plans import plan

from envelock import Assertion, Statement, errors
from envelock.cli import BANNER, OWN, SUMMARIES, main, root, with_global_options
from envelock.commands.console import Console
from envelock.commands.report import ending_of
from envelock.commands.wording import size_text
from envelock.writer import seal_bytes
from envelock_kas.cli import command as keys

SERVERS = ("aiohttp", "envelock_kas", "envelock_pdp", "envelock_service", "envelock_ledger.writer")


@dataclass
class Ended:
    """How a command line ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def envelock(capsys, monkeypatch, tmp_path):
    """Runs the command line in this process, in an empty directory, without profiles."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("ENVELOCK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def run(line: str, *more: object) -> Ended:
        code = main([*line.split(), *map(str, more)])
        shown = capsys.readouterr()
        return Ended(code, shown.out, shown.err)

    return run


class TestHelp:
    def test_bare_envelock_shows_commands_to_copy(self, envelock):
        """The first thing to do is on the first screen, and it is no error."""
        done = envelock("")

        assert (done.code, done.out) == (0, BANNER)

    def test_every_command_is_listed(self, envelock):
        """Ours and those of the other rooms, each with its sentence."""
        done = envelock("--help")

        for name, summary in SUMMARIES.items():
            assert re.search(rf"^  {name} +{re.escape(summary)}$", done.out, re.MULTILINE)

    @pytest.mark.parametrize("name", SUMMARIES)
    def test_every_help_has_an_example_and_the_global_options(self, envelock, name):
        """Help teaches."""
        done = envelock(f"{name} --help")

        assert done.code == 0
        for option in ("--data DIR", "--as NAME", "--json"):
            assert option in done.out

    @pytest.mark.parametrize("name", [*OWN, "keys", "demo"])
    def test_help_has_examples(self, envelock, name):
        """A line to copy."""
        assert f"envelock {name}" in envelock(f"{name} --help").out

    def test_keys_help_below_the_group(self, envelock):
        """Commands of groups have an example and the options too."""
        done = envelock("keys rotate --help")

        assert "Examples:\n    envelock keys rotate" in done.out
        assert "--as NAME" in done.out

    def test_version(self, envelock):
        """`--version` names the program and its version."""
        assert re.fullmatch(r"envelock \d+\.\d+\.\d+\S*\n", envelock("--version").out)


class TestLoading:
    def loaded(self, line):
        """The modules that a command line has loaded when it ends."""
        code = (
            "import sys; from envelock.cli import main\n"
            f"main({line.split()!r}); print(*sys.modules, file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        return set(done.stderr.decode().split())

    @pytest.mark.parametrize("line", ["--help", "encrypt --help", "inspect none"])
    def test_a_consumer_loads_no_server(self, line):
        """Neither help nor the consumer's commands import what only servers need."""
        assert not self.loaded(line).intersection(SERVERS)

    def test_help_loads_no_command(self):
        """Listing commands imports none of them, nor cryptography."""
        loaded = self.loaded("--help")

        assert not {f"envelock.commands.{name}" for name in OWN} & loaded
        assert "cryptography" not in loaded


class TestGlobalOptions:
    @pytest.mark.parametrize(
        "line",
        [
            "--data d --as me --json probe",
            "probe --data d --as me --json",
            "--json probe --data=d --as=me",
            "group --as me probe --data d --json",
            "group probe --json --as me --data d",
        ],
    )
    def test_accepted_before_and_after_every_command(self, line):
        """Where they stand on the line makes no difference."""
        seen = []

        @click.command("probe")
        @click.pass_obj
        def probe(console):
            seen.append((str(console.data), console.profile, console.json))

        main_with(probe, line)

        assert seen == [("d", "me", True)]

    def test_the_innermost_wins(self):
        """What is said last, nearest to the command, counts."""
        seen = []

        @click.command("probe")
        @click.pass_obj
        def probe(console):
            seen.append(console.profile)

        main_with(probe, "--as outer probe --as inner")

        assert seen == ["inner"]

    def test_after_two_dashes_they_are_text(self, envelock):
        """`--` ends the options, as everywhere."""
        done = envelock("inspect -- --json")

        assert done.err.startswith("error: --json: No such file")


class TestErrors:
    def test_an_unknown_command_suggests_one(self, envelock):
        """Exit 2, and what was likely meant."""
        done = envelock("decryptt")

        assert done.code == 2
        assert "'decrypt'" in done.err

    def test_usage_errors_name_the_help(self, envelock):
        """One line, one next line."""
        done = envelock("keys rotate")

        assert done.code == 2
        assert done.err.splitlines()[-1] == "next: envelock keys rotate --help"

    def test_with_json_even_a_bad_line_is_one_object(self, envelock):
        """Programs read errors before anything was understood."""
        done = envelock("decryptt --json")

        problem = json.loads(done.err)
        assert problem.keys() == {"error", "code", "next", "request_id", "exit_code"}
        assert (problem["code"], problem["exit_code"], done.code) == ("usage", 2, 2)

    def test_not_a_sealed_file_is_exit_4(self, envelock, tmp_path):
        """The file is named."""
        (tmp_path / "plain").write_text("plain")

        done = envelock("inspect plain")

        assert done.code == 4
        assert done.err.startswith("error: plain: ")

    def test_no_profile_is_exit_2(self, envelock, tmp_path):
        """Where there is none, what to run is said."""
        (tmp_path / "q").write_bytes(b"1")

        done = envelock("encrypt q --attr a=b")

        assert done.code == 2
        assert "envelock up" in done.err

    def test_the_unexpected_is_one_line(self):
        """No traceback; how to get one is said."""
        ending = ending_of(KeyError("x"))

        assert ending.exit_code == 1
        assert ending.message.startswith("unexpected KeyError")
        assert "ENVELOCK_DEBUG=1" in str(ending.hint)

    @pytest.mark.parametrize(
        ("error", "code", "word"),
        [
            (errors.EnvelockError("m"), 1, "error"),
            (errors.ConfigError("m"), 2, "error"),
            (errors.NotAuthenticatedError("m"), 3, "error"),
            (errors.DeniedError("m"), 3, "refused"),
            (errors.TamperedError("m"), 4, "error"),
            (errors.UnavailableError("m"), 5, "error"),
            (errors.ReceiptError("m"), 6, "error"),
            (FileNotFoundError(2, "No such file", "f"), 2, "error"),
            (ModuleNotFoundError("m", name="pkcs11"), 2, "error"),
            (ConnectionRefusedError(111, "Connection refused"), 5, "error"),
        ],
    )
    def test_exit_codes(self, error, code, word):
        """One for each kind of thing that can go wrong."""
        ending = ending_of(error)

        assert (ending.exit_code, ending.word) == (code, word)

    def test_a_bug_of_ours_is_not_a_missing_package(self):
        """A module of ours that is missing cannot be installed by anybody."""
        assert ending_of(ModuleNotFoundError("m", name="envelock.nothing")).exit_code == 1


class TestPrinting:
    def test_text_of_others_is_escaped(self, capsys):
        """Neither colours nor turned writing reach the terminal."""
        Console().emit({}, ["a\x1b[31mb\u202ec"])

        assert capsys.readouterr().out == "a\\u{1b}[31mb\\u{202e}c\n"

    def test_json_is_ascii(self, capsys):
        """The same holds for programs, and one value is one line."""
        Console(json=True).emit({"name": "\x1b\u202e\n"}, ["not this"])

        assert capsys.readouterr().out == '{"name": "\\u001b\\u202e\\n"}\n'

    def test_errors_are_escaped(self, envelock):
        """A name in an error is text of others too."""
        done = envelock("inspect", "no\x1b[31m")

        assert done.err.startswith("error: no\\u{1b}[31m: ")

    def test_what_was_done_goes_to_stderr(self, capsys):
        """stdout is data."""
        Console().done({}, "sealed x")

        assert capsys.readouterr() == ("", "sealed x\n")

    @pytest.mark.parametrize(
        ("size", "text"),
        [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 kB"),
            (64 << 20, "64.0 MB"),
            (3 << 40, "3.0 TB"),
        ],
    )
    def test_sizes(self, size, text):
        """In steps of 1024."""
        assert size_text(size) == text


class TestInspect:
    def test_needs_no_profile_and_no_server(self, envelock, tmp_path):
        """A file can be looked at by anybody, and is marked as unverified."""
        (tmp_path / "f.tdf").write_bytes(seal_bytes(b"x" * 40_000, plan()))

        done = envelock("inspect f.tdf")

        assert done.code == 0
        assert done.out.splitlines()[0] == (
            "OpenTDF 4.3.0, 39.1 kB, 3 segments        READ, NOT VERIFIED (decrypt verifies)"
        )

    def test_hostile_names_are_escaped(self, envelock, tmp_path):
        """What a file says of itself is text of others."""
        key = plan().key_access[0]
        evil = plan(key_access=(key.__class__(**fields(key) | {"kid": "a\x1b[2Jb"}),))
        (tmp_path / "f.tdf").write_bytes(seal_bytes(b"x", evil))

        done = envelock("inspect f.tdf")

        assert "\x1b" not in done.out
        assert "a\\u{1b}[2Jb" in done.out

    def test_as_json(self, envelock, tmp_path):
        """Full names, for programs."""
        (tmp_path / "f.tdf").write_bytes(seal_bytes(b"x", plan()))

        value = json.loads(envelock("inspect f.tdf --json").out)

        assert value["verified"] is False
        assert value["object"].startswith("sha256:")
        assert (value["assertions"], value["metadata"]) == ([], False)

    def test_assertions_are_shown_unverified(self, envelock, tmp_path):
        """One line each, made safe and short; what is none is said to be malformed."""
        said = Assertion("a\x1b", Statement("json", "urn:x", "v" * 100), type="handling")
        (tmp_path / "f.tdf").write_bytes(seal_bytes(b"x", plan(assertions=(said,))))

        shown = envelock("inspect f.tdf").out.splitlines()
        value = json.loads(envelock("inspect f.tdf --json").out)["assertions"]

        assert shown[-1] == (
            f"asserts a\\u{{1b}} (handling of the payload, HS256): urn:x {'v' * 60}…"
        )
        assert [(one["id"], one["value"], one["algorithm"]) for one in value] == [
            ("a\x1b", "v" * 100, "HS256")
        ]


class TestProfiles:
    def test_the_list_is_in_the_error(self, envelock, tmp_path):
        """Never a guess."""
        folder = tmp_path / "share" / "envelock" / "profiles"
        folder.mkdir(parents=True)
        (folder / "anna.toml").write_text('url = "http://127.0.0.1:1"\n')
        (tmp_path / "q").write_bytes(b"1")

        done = envelock("encrypt q --attr a=b")

        assert done.code == 2
        assert "profiles: anna; choose one with --as NAME" in done.err

    def test_login_refuses_to_send_secrets_in_the_clear(self, envelock, tmp_path):
        """Plain http is for loopback."""
        (tmp_path / "s").write_text("secret")

        done = envelock("login --url http://kas.example --client-id a --client-secret-file s")

        assert done.code == 2
        assert "not https" in done.err

    def test_login_pins_the_token_endpoint(self, envelock, tmp_path):
        """Another one later is refused, and pinned only when it is named."""
        (tmp_path / "s").write_text("secret")
        line = "login --as me --client-id a --client-secret-file s --url"
        with kas() as server, answering() as other:
            first = envelock(f"{line} {server.url}")
            [file] = tmp_path.rglob("me.toml")
            before = file.read_text()
            moved = f"{other.url}/token"
            server.answers[CONFIGURATION] = as_json({"idp": {"token_endpoint": moved}})
            other.answers["/token"] = as_json({"access_token": "a.b.c"})
            refused = envelock("login --as me")
            nobody_asked = not other.asked
            kept = file.read_text()
            named = envelock(f"login --as me --token-endpoint {moved}")

        assert (first.code, named.code) == (0, 0)
        assert f"token endpoint {server.url}/token" in first.err
        assert f'token_endpoint = "{server.url}/token"' in before
        assert (refused.code, kept, nobody_asked) == (2, before, True)
        assert "envelock login --token-endpoint" in refused.err
        assert f'token_endpoint = "{moved}"' in file.read_text()


@dataclass
class Operated:
    """A console whose server is a list of answers."""

    answer: dict
    calls: list = field(default_factory=list)
    printed: list = field(default_factory=list)

    def emit(self, _value, lines):
        self.printed += lines

    def operate(self, method, path, body):
        self.calls.append((method, path, body))
        return self.answer


class TestKeys:
    def run(self, console, line):
        return CliRunner().invoke(keys, line.split(), obj=console)

    def test_a_path_is_checked_before_it_is_sent(self):
        """What is no key path never becomes part of a URL."""
        console = Operated({})

        result = self.run(console, "rotate ../subjects")

        assert result.exception.exit_code == 2
        assert console.calls == []

    def test_destroy_repeats_the_path(self):
        """The server wants it said twice."""
        console = Operated({"keys": [], "record": 7})

        self.run(console, "destroy clinic:x --confirm")

        assert console.calls == [
            ("POST", "/v1/keys/clinic:x/destroy", {"below": False, "confirm": "clinic:x"})
        ]

    def test_destroy_without_confirm_sends_nothing(self):
        """And says how it would be meant."""
        console = Operated({})

        result = self.run(console, "destroy clinic:x")

        assert result.exception.hint.endswith("--confirm")
        assert console.calls == []


def main_with(probe, line):
    """Run *line* on a root that has `probe`, and a group that has it too."""
    group = click.Group("group", commands={"probe": probe})

    class Tried(type(root)):
        def get_command(self, _ctx, cmd_name):
            found = {"probe": probe, "group": group}[cmd_name]
            return with_global_options(found, cmd_name)

    tried = Tried("envelock", params=root.params, callback=root.callback)
    tried.main(line.split(), standalone_mode=False, obj=Console())


def fields(struct):
    """The members of a msgspec struct."""
    return {name: getattr(struct, name) for name in struct.__struct_fields__}

"""The commands against a deployment: what they write, what they refuse, and how they say so."""

import json
import os
import pty
import signal
import stat
import subprocess
import time
import tomllib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

SECRET = "clearance=secret"


@pytest.fixture
def sealed(shell):
    """`q3.pdf.tdf`, sealed for those with clearance secret."""
    (shell.directory / "q3.pdf").write_bytes(b"%PDF results")
    done = shell(f"encrypt q3.pdf --as doctor --attr {SECRET}")
    assert done.code == 0, done.err
    return shell.directory / "q3.pdf.tdf"


class TestEncryptAndDecrypt:
    @pytest.mark.usefixtures("sealed")
    def test_default_names_add_and_strip_the_suffix(self, shell):
        """`q3.pdf` becomes `q3.pdf.tdf`, and back."""
        (shell.directory / "q3.pdf").unlink()

        done = shell("decrypt q3.pdf.tdf --as doctor")

        assert (done.code, done.out) == (0, "")
        assert (shell.directory / "q3.pdf").read_bytes() == b"%PDF results"

    def test_stdin_goes_to_stdout(self, shell):
        """A pipe in is a pipe out, and stdout holds nothing but data."""
        sealed = shell(f"encrypt --as doctor --attr {SECRET}", stdin=b"negative")

        opened = shell("decrypt - --as doctor", stdin=sealed.raw)

        assert opened.raw == b"negative"
        assert sealed.err == ""

    def test_a_sealed_name_needs_a_target_when_it_has_no_suffix(self, shell, sealed):
        """Nobody guesses what `q3` should be called."""
        sealed.rename(shell.directory / "q3")

        done = shell("decrypt q3 --as doctor")

        assert done.code == 2
        assert "next: name the target: -o OUT" in done.err

    @pytest.mark.usefixtures("sealed")
    def test_an_existing_target_is_left_alone(self, shell):
        """Without --force it is exit 2, and nothing was asked: no release is on record for it."""
        before = shell("ledger show").out

        done = shell("decrypt q3.pdf.tdf --as doctor")

        assert done.code == 2
        assert done.err.startswith("error: q3.pdf exists\nnext: pass --force")
        assert shell("ledger show").out == before
        assert shell("decrypt q3.pdf.tdf --as doctor --force").code == 0

    def test_a_refused_decrypt_leaves_no_file(self, shell, sealed):
        """Neither the target nor a part of it appears."""
        (shell.directory / "q3.pdf").unlink()

        shell("decrypt q3.pdf.tdf --as accountant")

        assert [path.name for path in shell.directory.iterdir()] == [sealed.name]

    @pytest.mark.usefixtures("sealed")
    def test_a_refusal_as_json(self, shell):
        """One object on stderr, nothing on stdout."""
        done = shell("decrypt q3.pdf.tdf --as accountant -o - --json")

        assert (done.code, done.out) == (3, "")
        assert done.problem["code"] == "denied"
        assert done.problem["exit_code"] == 3
        assert done.problem["request_id"].startswith("r-")

    def test_a_changed_byte_is_exit_4(self, shell, sealed):
        """And nothing came out."""
        changed = bytearray(sealed.read_bytes())
        changed[60] ^= 1
        sealed.write_bytes(changed)

        done = shell("decrypt q3.pdf.tdf --as doctor -o out")

        assert done.code == 4
        assert done.err.startswith("error: q3.pdf.tdf: tampered")
        assert not (shell.directory / "out").exists()

    @pytest.mark.usefixtures("sealed")
    def test_a_kept_receipt_verifies(self, shell):
        """`--receipt` keeps what `ledger verify` accepts."""
        shell("decrypt q3.pdf.tdf --as doctor -o out --receipt q3.receipt")

        done = shell("ledger verify q3.receipt")

        assert done.code == 0
        assert done.out.startswith("ok    record ")

    def test_assertions_of_an_author(self, shell):
        """Signed with a key, required under it, listed; metadata is told."""
        author = ec.generate_private_key(ec.SECP256R1())
        form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (shell.directory / "author.pem").write_bytes(author.private_bytes(*form))
        public = author.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (shell.directory / "public.pem").write_bytes(public)
        said = {"id": "mark", "statement": {"format": "text", "schema": "s", "value": "cosmic"}}
        (shell.directory / "mark.json").write_text(json.dumps([said]))
        (shell.directory / "f").write_text("x")
        signing = "--assertion mark.json --assertion-key mark=author.pem --metadata hello"
        shell(f"encrypt f --as doctor --attr clearance=secret {signing}")

        opened = shell(
            "decrypt f.tdf --as doctor -o back --require-assertion mark"
            " --assertion-key mark=public.pem --list-assertions"
        )
        unnamed = shell("decrypt f.tdf --as doctor -o other")
        missing = shell("decrypt f.tdf --as doctor -o other --require-assertion seal")
        listed = shell("decrypt f.tdf --as doctor -o other --list-assertions --json")

        assert "assertion mark: verified under the named key" in opened.err
        assert "metadata: hello" in opened.err
        assert (unnamed.code, missing.code) == (4, 4)
        assert "none was named for it" in unnamed.err
        assert "'seal': is missing" in missing.err
        assert json.loads(listed.out)["assertions"][0]["verified"] is False

    @pytest.mark.parametrize("line", [
        "--assertion none.json", "--assertion f", "--assertion-key x", "--assertion-key a=f",
    ])  # fmt: skip
    def test_assertions_that_cannot_be_read_are_exit_2(self, shell, line):
        """Before anything is sealed."""
        (shell.directory / "f").write_text("x")

        assert shell(f"encrypt f --as doctor --attr clearance=secret -o no.tdf {line}").code == 2
        assert not (shell.directory / "no.tdf").exists()

    def test_online_sealing_makes_an_object_of_the_kas(self, shell):
        """The id is the one that the KAS gave, and the file opens like any other."""
        shell(f"encrypt - --online --dataset labs --as doctor -o o.tdf --attr {SECRET}", stdin=b"1")

        shown = shell("inspect o.tdf --json").value

        assert len(shown["object"]) == 32
        assert shown["keys"][0]["algorithm"] == "aes:256, online"
        assert shell("decrypt o.tdf --as doctor -o -").raw == b"1"

    def test_an_unopenable_seal_is_warned_of(self, shell):
        """Sealing goes on; what nobody could open is said."""
        done = shell("encrypt - -o x.tdf --as doctor --attr other.example/a=b", stdin=b"1")

        assert done.code == 0
        assert "warning: no mapping or rule of your tenant could open" in done.err

    def test_no_attribute_is_warned_of(self, shell):
        """An object that asks for nothing depends on rules alone."""
        done = shell("encrypt - -o x.tdf --as doctor", stdin=b"1")

        assert done.err.startswith("warning: no --attr")

    def test_an_unknown_attribute_names_the_candidates(self, shell):
        """Exit 2, before anything was written."""
        done = shell("encrypt - -o x.tdf --as doctor --attr clearance=secrt", stdin=b"1")

        assert done.code == 2
        assert "clinic.example/clearance=secret" in done.err
        assert not (shell.directory / "x.tdf").exists()

    def test_a_missing_file_is_exit_2(self, shell):
        """No traceback."""
        done = shell("decrypt none.tdf --as doctor")

        assert done.code == 2
        assert done.err.startswith("error: none.tdf: No such file or directory\nnext: ")

    @pytest.mark.usefixtures("sealed")
    def test_nobody_is_guessed(self, shell):
        """Without a choice the profiles are listed."""
        done = shell("decrypt q3.pdf.tdf -o -")

        assert done.code == 2
        assert "accountant" in done.err
        assert "--as NAME" in done.err


class TestRebind:
    """Another policy for a file, at a shell."""

    def test_the_records_office_gives_a_file_another_policy(self, shell, sealed):
        """In its place; what former copies are good for is said; the ledger finds both."""
        former = shell.directory / "former.tdf"
        former.write_bytes(sealed.read_bytes())

        done = shell("rebind q3.pdf.tdf --as archivist --attr clearance=internal --receipt kept")

        opened = shell("decrypt q3.pdf.tdf --as nurse -o -")
        shown = [shell(f"ledger show --file {name}").out for name in ("q3.pdf.tdf", "former.tdf")]
        assert (done.code, done.out) == (0, "")
        assert done.err.splitlines() == [
            "rebound q3.pdf.tdf: asks clearance=internal, no longer clearance=secret",
            "note: copies of the former file still open for whom the former policy permits",
        ]
        assert opened.raw == b"%PDF results"
        assert all("  rebind  " in text for text in shown)
        assert shell("ledger verify kept").code == 0

    def test_made_online_former_copies_are_shut(self, shell):
        """One JSON object says what is so; the refusal of the former copy names no reason."""
        sealing = f"encrypt - -o a.tdf --online --as doctor --attr {SECRET}"
        assert shell(sealing, stdin=b"negative").code == 0
        (shell.directory / "former.tdf").write_bytes((shell.directory / "a.tdf").read_bytes())

        done = shell("rebind a.tdf --as archivist --attr clearance=internal --json")

        assert done.value["online"] is True
        assert done.value["attrs"] == ["https://clinic.example/attr/clearance/value/internal"]
        assert done.value["former"] == ["https://clinic.example/attr/clearance/value/secret"]
        assert shell("decrypt a.tdf --as nurse -o -").raw == b"negative"
        assert shell("decrypt former.tdf --as doctor -o -").code == 3

    def test_a_refusal_leaves_the_file(self, shell, sealed):
        """Exit 3, who and what, and where the reason is."""
        before = sealed.read_bytes()

        done = shell("rebind q3.pdf.tdf --as doctor --attr clearance=internal")

        assert done.code == 3
        assert "doctor@clinic may not rebind q3.pdf.tdf" in done.err
        assert "the reason is only in the ledger" in done.err
        assert sealed.read_bytes() == before

    @pytest.mark.usefixtures("sealed")
    @pytest.mark.parametrize(
        ("line", "code", "said"),
        [
            (f"rebind q3.pdf.tdf --as archivist --attr {SECRET}", 2, "asks for that already"),
            ("rebind q3.pdf --as archivist --attr clearance=internal", 4, "q3.pdf: "),
            ("rebind none.tdf --as archivist --attr clearance=internal", 2, "is not a file"),
            ("rebind q3.pdf.tdf --as archivist --attr clearance=purple", 2, "unknown"),
            (
                "rebind q3.pdf.tdf --as archivist --attr clearance=internal --receipt q3.pdf",
                2,
                "exists",
            ),
        ],
    )
    def test_what_cannot_be_done_is_said(self, shell, line, code, said):
        """Before anything is asked of the KAS."""
        done = shell(line)

        assert done.code == code
        assert said in done.err


class TestTerminal:
    def test_sealed_bytes_never_reach_a_terminal(self, shell):
        """Exit 2, with what to do."""
        code, shown = on_a_terminal(shell, f"encrypt - --as doctor --attr {SECRET}", b"x")

        assert code == 2
        assert b"sealed bytes are not for a terminal" in shown

    @pytest.mark.usefixtures("sealed")
    def test_text_reaches_a_terminal(self, shell):
        """What was sealed as text can be read there."""
        code, shown = on_a_terminal(shell, "decrypt q3.pdf.tdf --as doctor -o -")

        assert (code, shown) == (0, b"%PDF results")

    def test_control_sequences_never_reach_a_terminal(self, shell):
        """Text of others that would act on it is refused whole."""
        evil = b"harmless \x1b]0;title\x07"
        shell(f"encrypt - -o e.tdf --as doctor --attr {SECRET}", stdin=evil)

        code, shown = on_a_terminal(shell, "decrypt e.tdf --as doctor -o -")

        assert code == 2
        assert b"\x1b" not in shown
        assert b"not plain text" in shown


class TestLogin:
    def arguments(self, deployment):
        secret = deployment.data / "secrets" / "client-doctor.secret"
        return f"--url {deployment.url} --client-id doctor --client-secret-file {secret}"

    @pytest.mark.usefixtures("sealed")
    def test_writes_a_private_profile_that_works(self, shell, deployment):
        """The ledger key is shown on first use, and pinned."""
        done = shell(f"login --as me {self.arguments(deployment)}")

        profile = shell.directory / "config" / "envelock" / "me.toml"
        assert done.code == 0
        assert f"ledger key {deployment.ledger_key}" in done.err
        assert stat.S_IMODE(profile.stat().st_mode) == 0o600
        assert tomllib.loads(profile.read_text())["ledger_key"] == deployment.ledger_key
        assert shell("decrypt q3.pdf.tdf --as me -o -").raw == b"%PDF results"

    def test_another_key_than_the_pinned_one_changes_nothing(self, shell, deployment):
        """Exit 6."""
        shell(f"login --as me {self.arguments(deployment)}")
        profile = shell.directory / "config" / "envelock" / "me.toml"
        other = deployment.ledger_key.replace("envelock-", "envelock-0")
        profile.write_text(profile.read_text().replace(deployment.ledger_key, other))
        before = profile.read_bytes()

        done = shell(f"login --as me {self.arguments(deployment)}")

        assert done.code == 6
        assert profile.read_bytes() == before

    def test_a_wrong_secret_writes_nothing(self, shell, deployment):
        """The credentials are tried first."""
        (shell.directory / "wrong").write_text("no secret")

        done = shell(f"login --url {deployment.url} --client-id doctor --client-secret-file wrong")

        assert done.code == 3
        assert not (shell.directory / "config").exists()

    def test_a_given_key_must_be_the_servers(self, shell, deployment):
        """Whoever brings the key from elsewhere does not trust the first answer."""
        other = deployment.ledger_key.replace("envelock-", "envelock-0")

        done = shell(f"login --as me {self.arguments(deployment)} --ledger-key {other}")

        assert done.code == 6
        assert not (shell.directory / "config").exists()

    def test_a_profile_of_up_is_not_shadowed(self, shell, deployment):
        """What would never be read is not written."""
        done = shell(f"login --as doctor {self.arguments(deployment)}")

        assert done.code == 2
        assert "--as NAME" in done.err

    def test_what_is_missing_is_named(self, shell):
        """Exit 2."""
        assert "--url is missing" in shell("login --as me").err


class TestKeys:
    @pytest.fixture
    def path(self, shell, request):
        """A key of its own for each test: a dataset, and a month below it."""
        dataset = f"clinic:{request.node.name.replace('_', '-')}"[:60].rstrip("-")
        assert shell(f"keys create {dataset}:2026-01 --as operator").code == 0
        return dataset

    def test_rotation_in_a_sentence(self, shell, path):
        """What happened to each version, the record, and that files stay."""
        done = shell(f"keys rotate {path}:2026-01 --as operator")

        said, _, rest = done.out.partition(", record ")
        assert said == "v1 deprecated (still opens), v2 active"
        assert rest.endswith("; no file rewritten\n")

    def test_algorithms_are_chosen(self, shell, path):
        """By name, in order; a rotation keeps or changes them; online keys have none to choose."""
        named = "--algorithm ec:secp384r1 --algorithm rsa:4096"
        shell(f"keys create {path}:2026-02 {named} --as operator")
        shell(f"keys rotate {path}:2026-02 --as operator")
        shell(f"keys rotate {path}:2026-02 --algorithm ec:secp521r1 --as operator")
        shown = shell(f"keys show {path}:2026-02 --as operator --json").value["keys"]
        online = shell(f"keys create {path}:2026-03 --online --algorithm rsa:2048 --as operator")
        unknown = shell(f"keys create {path}:2026-03 --algorithm rsa:1024 --as operator")

        chosen = ["ec:secp384r1", "rsa:4096"]
        assert [key["algorithms"] for key in shown] == [chosen, chosen, ["ec:secp521r1"]]
        assert (online.code, unknown.code) == (2, 2)
        assert "nothing was changed" in online.err

    def test_list_and_show(self, shell, path):
        """A table for people, objects with --json."""
        listed = shell("keys list --as operator")
        shown = shell(f"keys show {path}:2026-01 --as operator --json").value["keys"]

        assert f"{path}:2026-01:v1" in listed.out
        assert [key["state"] for key in shown] == ["active"]

    def test_what_lies_below_must_be_meant(self, shell, path):
        """Children are listed, exit 2, and nothing was changed."""
        done = shell(f"keys suspend {path} --as operator")

        assert done.code == 2
        assert f"{path}:2026-01" in done.err
        assert shell(f"keys show {path} --as operator --json").value["keys"][0]["state"] == "active"

    def test_suspension_below_can_be_taken_back(self, shell, path):
        """Both ways in one record each."""
        suspended = shell(f"keys suspend {path} --below --as operator")
        resumed = shell(f"keys resume {path} --below --as operator")

        assert f"{path}:2026-01:v1 suspended, record " in suspended.out
        assert f"{path}:2026-01:v1 active, record " in resumed.out

    def test_destruction_must_be_confirmed(self, shell, path):
        """Without --confirm nothing changes; with it there is a way back."""
        refused = shell(f"keys destroy {path}:2026-01 --as operator")
        scheduled = shell(f"keys destroy {path}:2026-01 --confirm --as operator")
        saved = shell(f"keys cancel {path}:2026-01 --as operator")

        assert refused.code == 2
        assert "v1 destroyed after 2" in scheduled.out
        assert saved.out.startswith("v1 active, record ")

    def test_only_operators(self, shell):
        """A doctor is told what is missing."""
        done = shell("keys list --as doctor")

        assert done.code == 3
        assert done.err.startswith("refused: operating on keys needs the scope envelock:keys\n")

    def test_an_unknown_key_is_exit_2(self, shell):
        """The person mistyped; nobody was denied."""
        done = shell("keys show clinic:nothing --as operator --json")

        assert done.code == 2
        assert done.problem["code"] == "not_found"

    def test_a_suspended_key_seals_nothing(self, shell, path):
        """The refusal carries the server's own words."""
        shell(f"keys suspend {path} --below --as operator")

        done = shell(
            f"encrypt - -o x.tdf --as doctor --dataset {path.partition(':')[2]} --attr {SECRET}"
        )

        assert done.code == 3
        assert "suspended" in done.err


@pytest.mark.usefixtures("sealed")
def test_the_ledger_finds_the_records_of_a_file(shell):
    """`ledger show --file` knows a file by the ids of its keys."""
    shell("decrypt q3.pdf.tdf --as doctor -o out")
    shell("decrypt q3.pdf.tdf --as accountant -o none")

    lines = shell("ledger show --file q3.pdf.tdf").out.splitlines()

    assert [line.split("  ")[2] for line in lines] == ["release", "denied"]


def test_a_closed_pipe_is_quiet(shell):
    """`envelock ... | head` says nothing about it."""
    listing = subprocess.Popen(
        [*shell.program, "ledger", "show"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=shell.full_environment,
    )
    listing.stdout.close()

    assert listing.stderr.read() == b""
    listing.stderr.close()
    listing.wait(20)


def test_an_interrupt_is_exit_130(shell):
    """Ctrl-C while something is read: no traceback, no file."""
    waiting = subprocess.Popen(
        [*shell.program, *f"encrypt - -o x.tdf --as doctor --attr {SECRET}".split()],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=shell.directory,
        env=shell.full_environment,
    )
    deadline = time.monotonic() + 20
    while not list(shell.directory.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    waiting.send_signal(signal.SIGINT)
    said = waiting.stderr.read()
    waiting.wait(20)
    waiting.stdin.close()
    waiting.stderr.close()

    assert waiting.returncode == 130
    assert said.strip() == b""
    assert list(shell.directory.iterdir()) == []


def on_a_terminal(shell, line, stdin=b""):
    """Run a command whose stdout and stderr are a terminal; returns exit code and what it shows."""
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [*shell.program, *line.split()],
        input=stdin,
        stdout=theirs,
        stderr=theirs,
        cwd=shell.directory,
        env=shell.full_environment,
        check=False,
        timeout=60,
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 1 << 16):
            shown += piece
    except OSError:
        pass  # the end, on Linux
    os.close(ours)
    return done.returncode, shown

"""What people see, from the installed wheel, outside the checkout: the transcripts of the manual.

`...` in a transcript stands for what differs from run to run: ids, times, addresses, digests.
"""

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from e2e.shell import Shell, reads

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("formats", "kas", "ledger", "pdp", "policies", "sdk", "service")
SECRET = "clearance=secret"
SLOW_SECONDS = 15


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The `bin` of an environment that has our wheel and the locked dependencies, no checkout."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    for room in ROOMS:
        junk = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / room, source / room, ignore=junk)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source / file)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", place, source)
    run(sys.executable, "-m", "venv", "--without-pip", place / "venv")
    packages = next(place.glob("venv/lib/python3*/site-packages"))
    # A directory that a .pth adds is searched, but its own .pth files, the checkout's among them,
    # are not obeyed.
    locked = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    (packages / "locked.pth").write_text(f"{locked}\n")
    [wheel] = place.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "--python", place / "venv" / "bin" / "python")
    run(*pip, "install", "--quiet", "--no-index", "--no-deps", "--ignore-installed", wheel)
    return place / "venv" / "bin"


@pytest.fixture(scope="module")
def person(installed, tmp_path_factory):
    """Somebody who typed `envelock up` in one terminal and has another one."""
    home = tmp_path_factory.mktemp("home")
    shell = Shell(home, {"XDG_DATA_HOME": str(home / "share")}, (str(installed / "envelock"),))
    (home / "q3.pdf").write_bytes(b"%PDF results")
    with (home / "up.log").open("wb") as log:
        up = subprocess.Popen(
            [*shell.program, "up", "--listen", "127.0.0.1:0", "--workers", "1"],
            stdout=log,
            stderr=log,
            cwd=home,
            env=shell.full_environment,
        )
    console = wait_for(home / "up.log", "envelock ledger show")
    assert shell(f"encrypt q3.pdf --as doctor --attr {SECRET}").code == 0
    yield shell
    up.send_signal(signal.SIGTERM)
    assert up.wait(20) == 0, console


@pytest.fixture(scope="module")
def ledger_key(person) -> str:
    """The log's key as `up` printed it."""
    return re.search(r"ledger_key (\S+)", (person.directory / "up.log").read_text())[1]


class TestWheel:
    def test_nothing_comes_from_the_checkout(self, installed, tmp_path):
        """Every package, and the data files of the policies, came with the wheel."""
        code = (
            "import envelock, envelock_kas, envelock_policies as p, pathlib\n"
            "print(envelock.__file__); print(envelock_kas.__file__); print(p.path('clinic'))"
        )

        shown = run(installed / "python", "-c", code, cwd=tmp_path).splitlines()

        assert all(line.startswith(str(installed.parent)) for line in shown)

    def test_the_bundles_came_along_whole(self, installed):
        """File by file what the repository has."""
        [packed] = installed.parent.glob("lib/python3*/site-packages/envelock_policies")

        assert files_of(packed) == files_of(ROOT / "policies" / "envelock_policies")

    def test_bare_envelock_says_how_to_begin(self, person):
        """Commands to copy, exit 0."""
        done = person("")

        assert done.code == 0
        assert "envelock up" in done.out
        assert "--attr clearance=secret" in done.out


def test_up(person):
    """The first start says what it made, where everything is, and what to try."""
    shown = (person.directory / "up.log").read_text()
    lines = [line for line in shown.splitlines() if not line.startswith("policy ")]

    assert reads(
        "\n".join(lines),
        """
created .../share/envelock (DEVELOPMENT: local keys, test identities)
ready  url http://127.0.0.1:...  issuer http://...  pdp http://...  data ...  ledger_key ...
try    echo hi | envelock encrypt - --as doctor --attr clearance=secret -o hi.tdf
       envelock decrypt hi.tdf --as doctor -o -    # --as accountant: refused; then:
       envelock ledger show
""",
    )


def test_what_up_suggests(person):
    """The suggested commands do what they say."""
    person("encrypt - --as doctor --attr clearance=secret -o hi.tdf", stdin=b"hi\n")

    assert person("decrypt hi.tdf --as doctor -o -").raw == b"hi\n"
    assert person("decrypt hi.tdf --as accountant -o -").code == 3


def test_a_refusal_and_its_reason(person):
    """The reply says whom to quote what; `ledger show` with that id knows the reason."""
    done = person("decrypt q3.pdf.tdf --as accountant -o -")

    assert done.code == 3
    assert reads(
        done.err,
        """
refused: accountant@clinic may not open q3.pdf.tdf (file asks: clearance=secret)
next: quote request r-... to records@clinic.example; the reason is only in the ledger
""",
    )
    shown = person("ledger show", re.search(r"r-[0-9a-f]+", done.err)[0])
    assert "rsn      entitlement: clearance" in shown.out


def test_inspect(person):
    """What a file says, marked as unverified."""
    assert reads(
        person("inspect q3.pdf.tdf").out,
        """
OpenTDF 4.3.0, 12 B, 1 segment            READ, NOT VERIFIED (decrypt verifies)
key     clinic:records:...:v1 at http://127.0.0.1:8080 (ec:secp256r1)
asks    clinic.example/clearance=secret   dissem none
object  sha256:...
""",
    )


class TestPolicies:
    def test_cases_that_fail(self, person):
        """Each failure names the case and how it was decided; exit 1."""
        edited(person, "bundle", "cases/hours.json", '"expect": "deny"', '"expect": "permit"')

        done = person("policy test bundle")

        assert done.code == 1
        assert reads(
            done.out,
            """
FAIL cases/hours.json "temp at 03:00": expected permit, got deny
     entitlement clearance=internal yes; denied by hours; ...
29 of 30 cases pass; 6 of 6 rules decided a case
""",
        )

    def test_a_malformed_rule(self, person):
        """The place, what is wrong there, and what was meant; exit 4."""
        edited(person, "bundle", "rules/hours.json", '"Gte"', '"Gtee"')

        done = person("policy test bundle")

        assert done.code == 4
        assert done.err.startswith(
            "error: rules/hours.json /0/rules/context/0/$.time.hour:"
            ' unknown condition "Gtee" (did you mean "Gte"?)\n'
        )

    def test_up_reloads_what_is_saved(self, person):
        """A broken bundle changes nothing; a good one is in force with a record."""
        bundle = "share/envelock/policies/clinic"
        console = person.directory / "up.log"
        rules = person.directory / bundle / "rules" / "hours.json"
        good = rules.read_text()

        rules.write_text(good.replace('"uid": "hours",', '"uid": "hours"'))
        kept = wait_for(console, "kept: ")
        rules.write_text(good.replace('"value": 20', '"value": 21'))
        changed = wait_for(console, "-> 2 in force")

        assert re.search(r"policy clinic: epoch 1 kept: rules/hours.json .*expected", kept)
        assert re.search(r"policy clinic: epoch 1 -> 2 in force, record \d+", changed)


@pytest.fixture(scope="module")
def copy(person) -> Path:
    """A snapshot, and a checkpoint from before it."""
    (person.directory / "sep.checkpoint").write_text(person("ledger checkpoint").out)
    person("decrypt q3.pdf.tdf --as doctor -o /dev/null")
    person("decrypt q3.pdf.tdf --as accountant -o /dev/null")
    person("ledger snapshot nov.ledger")
    return person.directory / "nov.ledger"


class TestLedger:
    def test_verify(self, person, copy, ledger_key):
        """An auditor's copy verifies by itself, and says what that does not show."""
        since = ("--ledger-key", ledger_key, "--since", "sep.checkpoint")

        done = person("ledger verify", copy.name, *since)

        assert done.code == 0
        assert reads(
            done.out,
            """
ok    records 0-...: leaves, chain, root ..., 1 tenant chain
ok    checkpoint of ...Z, signed by ...
ok    extends sep.checkpoint (... records): nothing removed or rewritten
open  not shown: later records; that others got this same log; hidden subjects
""",
        )

    @pytest.mark.usefixtures("copy")
    def test_show(self, person):
        """The records of one file, whose subjects stay hidden."""
        done = person("ledger show --from nov.ledger --file q3.pdf.tdf")

        assert reads(
            "\n".join(done.out.splitlines()[-2:]),
            """
...  ...Z  release  hidden:...  sha256:...  clinic:records:...:v1  r-...
...  ...Z  denied  hidden:...  sha256:...  clinic:records:...:v1  entitlement: clearance  r-...
""",
        )

    def test_a_flipped_bit(self, person, copy, ledger_key):
        """Verification names the record; exit 6."""
        bad = bytearray(copy.read_bytes())
        bad[bad.find(b'"rsn":"entitlement') + 8] ^= 1
        (person.directory / "bad.ledger").write_bytes(bad)

        done = person("ledger verify bad.ledger", "--ledger-key", ledger_key)

        assert done.code == 6
        assert re.match(
            r"FAIL  record \d+, column body: does not match its leaf; 0-\d+ verify\n", done.out
        )


def test_rotation(person):
    """One sentence: versions, record, and that files stay."""
    key = person("inspect q3.pdf.tdf --json").value["keys"][0]["kid"].rpartition(":")[0]

    done = person("keys rotate", key, "--as", "operator")

    assert reads(done.out, "v1 deprecated (still opens), v2 active, record ...; no file rewritten")
    assert person("decrypt q3.pdf.tdf --as doctor -o -").raw == b"%PDF results"


def run(*command, cwd=None) -> str:
    """Run a tool that must succeed."""
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wait_for(log: Path, words: str) -> str:
    """The console of `up` once it holds *words*."""
    deadline = time.monotonic() + SLOW_SECONDS
    while words not in (shown := log.read_text()):
        assert time.monotonic() < deadline, shown
        time.sleep(0.05)
    return shown


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file but the compiled ones."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def edited(person, folder: str, file: str, old: str, new: str) -> None:
    """A fresh copy of the shipped clinic, with the first *old* replaced in one file."""
    place = person.directory / folder
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(ROOT / "policies" / "envelock_policies" / "clinic", place)
    text = (place / file).read_text()
    assert old in text
    (place / file).write_text(text.replace(old, new, 1))

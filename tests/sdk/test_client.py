"""Both clients against a real deployment: what they give, refuse, and never do."""

import asyncio
import io
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest

from envelock import (
    Assertion,
    AsyncClient,
    Client,
    ConfigError,
    Demands,
    DeniedError,
    FormatError,
    KasNotAllowedError,
    NotAuthenticatedError,
    ReceiptError,
    Statement,
    TamperedError,
    UnavailableError,
)
from envelock.addresses import origin
from envelock.exchange import Call, Reply
from envelock.profile import load_profile
from envelock.reader import SealedFile
from envelock.state import Head, Heads
from envelock.testing import Server, server
from envelock.writer import SealPlan, seal_bytes
from envelock_formats.framing import b64
from envelock_formats.tdf.keyaccess import KeyAccess, bind_policy
from envelock_formats.tdf.policy import write_policy
from envelock_ledger.note import VerifierKey
from envelock_ledger.proof import Receipt

SECRET = "clearance=secret"


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    """One deployment for all tests of this module."""
    with server() as found:
        yield found


@pytest.fixture
def doctor(running: Server) -> Client:
    """A client that may open."""
    return running.client("doctor")


def bearer(running: Server, name: str) -> str:
    """An unbound token, as a web application has one of its user."""
    secret = (running.data / "secrets" / f"client-{name}.secret").read_text().strip()
    form = {"grant_type": "client_credentials", "client_id": name, "client_secret": secret}
    request = Request(f"{running.issuer}/token", urlencode(form).encode())  # noqa: S310 loopback
    with urlopen(request) as answer:  # noqa: S310 loopback
        return str(json.load(answer)["access_token"])


class TestBothWays:
    """Seal and open, in every form that bytes come in."""

    def test_bytes_in_bytes_out(self, doctor: Client):
        """The shortest way."""
        assert doctor.decrypt(doctor.encrypt(b"negative", attrs=SECRET)) == b"negative"

    @pytest.mark.parametrize("online", [False, True])
    def test_paths_and_results(self, doctor: Client, tmp_path: Path, *, online: bool):
        """A target gives a result: sizes, attributes, receipt."""
        plain, sealed, back = (tmp_path / name for name in ("a", "a.tdf", "b"))
        plain.write_bytes(os.urandom(5_000_000))
        written = doctor.encrypt(plain, sealed, attrs=SECRET, online=online)
        opened = doctor.decrypt(sealed, back)

        assert back.read_bytes() == plain.read_bytes()
        assert (written.size, opened.size) == (5_000_000, 5_000_000)
        assert opened.attrs == ("https://clinic.example/attr/clearance/value/secret",)

    @pytest.mark.parametrize("online", [False, True])
    async def test_assertions_and_metadata(
        self, running: Server, doctor: Client, tmp_path: Path, *, online: bool
    ):
        """Sealed with the file, verified and decrypted with it, by both clients."""
        said = Assertion("mark", Statement("text", "urn:x", "cosmic"))
        sealed = doctor.encrypt(
            b"x", attrs=SECRET, online=online, assertions=[said], metadata="for Ada"
        )
        demands = Demands(["mark"])

        opened = doctor.decrypt(sealed, tmp_path / "x", demands=demands)
        async with AsyncClient(profile=running.data / "profiles" / "doctor.toml") as other:
            with await other.open(sealed, demands=demands) as reader:
                assert (reader.metadata, reader.read()) == (b"for Ada", b"x")
                assert reader.assertions == opened.assertions

        assert opened.metadata == b"for Ada"
        assert [(one.id, one.signer) for one in opened.assertions] == [("mark", "data key")]
        with pytest.raises(TamperedError, match="'seal': is missing"):
            doctor.decrypt(sealed, demands=Demands(["mark", "seal"]))
        if not online:
            moved = tmp_path / "x.tdf"
            moved.write_bytes(sealed)
            running.client("archivist").rebind(moved, attrs="clearance=internal")
            again = running.client("nurse").decrypt(moved, tmp_path / "y", demands=demands)
            assert (again.assertions, again.metadata) == (opened.assertions, opened.metadata)

    def test_too_much_metadata_is_refused(self, doctor: Client):
        """Before anything is sealed."""
        with pytest.raises(ConfigError, match="metadata"):
            doctor.encrypt(b"x", attrs=SECRET, metadata="x" * 70_000)

    def test_pipes_in_both_directions(self, doctor: Client):
        """Neither end has to be seekable."""
        read_end, write_end = os.pipe()
        data = os.urandom(3_000_000)

        def feed() -> None:
            with open(write_end, "wb") as sink:  # noqa: PTH123 a descriptor
                sink.write(data)

        threading.Thread(target=feed).start()
        sealed = io.BytesIO()
        with open(read_end, "rb") as source:  # noqa: PTH123 a descriptor
            doctor.encrypt(source, sealed, attrs=SECRET)
        sealed.seek(0)

        assert doctor.decrypt(sealed) == data

    def test_reads_anywhere(self, doctor: Client):
        """The reader is a seekable file."""
        data = os.urandom(6_000_000)
        with doctor.open(doctor.encrypt(data, attrs=SECRET)) as reader:
            reader.seek(4_194_300)
            middle = reader.read(10)

        assert middle == data[4_194_300:4_194_310]

    async def test_asynchronously(self, running: Server):
        """The same with await."""
        profile = running.data / "profiles" / "doctor.toml"
        async with AsyncClient(profile=profile) as client:
            sealed = await asyncio.gather(
                *(client.encrypt(bytes([n]), attrs=SECRET, online=n % 2 == 0) for n in range(4))
            )
            opened = await asyncio.gather(*(client.decrypt(one) for one in sealed))

        assert opened == [bytes([n]) for n in range(4)]

    def test_one_client_in_many_threads(self, doctor: Client):
        """Threads share a client without mixing up their files."""
        sealed = [doctor.encrypt(bytes([n]) * 10, attrs=SECRET) for n in range(8)]
        opened: dict[int, bytes] = {}

        def read(number: int) -> None:
            opened[number] = doctor.decrypt(sealed[number])

        threads = [threading.Thread(target=read, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert opened == {n: bytes([n]) * 10 for n in range(8)}


class TestIdentity:
    """Who a client is."""

    def test_acts_for_a_user_with_the_users_own_token(self, running: Server, doctor: Client):
        """An application opens as its end user: permitted for one, refused for the other."""
        sealed = doctor.encrypt(b"x", attrs=SECRET)
        permitted = doctor.with_token(lambda: bearer(running, "doctor"))
        refused = doctor.with_token(bearer(running, "accountant"))

        assert permitted.decrypt(sealed) == b"x"
        with pytest.raises(DeniedError):
            refused.decrypt(sealed)

    async def test_an_async_token_callable_may_await(self, running: Server, doctor: Client):
        """Tokens often come from somewhere slow."""
        sealed = doctor.encrypt(b"x", attrs=SECRET)

        async def token() -> str:
            await asyncio.sleep(0)
            return bearer(running, "doctor")

        profile = running.data / "profiles" / "doctor.toml"
        async with AsyncClient(profile=profile) as client:
            opened = await client.with_token(token).decrypt(sealed)

        assert opened == b"x"

    def test_a_wrong_secret_is_not_authenticated(self, running: Server, tmp_path: Path):
        """The error says what to do, and not the secret."""
        (tmp_path / "secret").write_text("wrong-secret")
        text = (running.data / "profiles" / "doctor.toml").read_text()
        kept = [line for line in text.splitlines() if not line.startswith("client_secret_file")]
        profile = tmp_path / "p.toml"
        profile.write_text("\n".join([*kept, f'client_secret_file = "{tmp_path / "secret"}"']))

        with pytest.raises(NotAuthenticatedError) as caught:
            Client(profile=profile).encrypt(b"x", attrs="clinic.example/clearance=secret")
        assert "wrong-secret" not in str(caught.value)

    def test_a_garbage_token_is_not_authenticated(self, doctor: Client):
        """The server's 401 is the client's error."""
        sealed = doctor.encrypt(b"x", attrs=SECRET)

        with pytest.raises(NotAuthenticatedError):
            doctor.with_token("garbage").decrypt(sealed)

    def test_nobody_is_guessed(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        """Without a profile the error lists what there is."""
        for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
            monkeypatch.setenv(name, str(tmp_path))
        monkeypatch.delenv("ENVELOCK_PROFILE", raising=False)
        (tmp_path / "envelock").mkdir()
        (tmp_path / "envelock" / "ada.toml").write_text('url = "https://kas.example"\n')

        with pytest.raises(ConfigError) as caught:
            load_profile(None, os.environ)
        assert "ada" in (caught.value.hint or "")


class TestRefusals:
    """What is refused, and how it is told."""

    def test_a_denial_has_a_request_id_and_no_reason(self, running: Server, doctor: Client):
        """The reason is only in the ledger."""
        sealed = doctor.encrypt(b"x", attrs=SECRET)

        with pytest.raises(DeniedError) as caught:
            running.client("accountant").decrypt(sealed)
        assert (caught.value.request_id or "").startswith("r-")
        assert "clearance" not in str(caught.value)
        assert pickle.loads(pickle.dumps(caught.value)).request_id == caught.value.request_id  # noqa: S301 our own

    def test_a_tampered_file_is_refused_without_output(self, doctor: Client, tmp_path: Path):
        """One altered byte: no plaintext file appears."""
        sealed = bytearray(doctor.encrypt(os.urandom(5_000), attrs=SECRET))
        sealed[2_000] ^= 1
        target = tmp_path / "out"

        with pytest.raises(TamperedError):
            doctor.decrypt(bytes(sealed), target)
        assert not target.exists()

    def test_an_existing_target_needs_force(self, doctor: Client, tmp_path: Path):
        """Nothing is overwritten by accident."""
        target = tmp_path / "a.tdf"
        target.write_bytes(b"mine")

        with pytest.raises(ConfigError):
            doctor.encrypt(b"x", target, attrs=SECRET)
        assert target.read_bytes() == b"mine"
        doctor.encrypt(b"x", target, attrs=SECRET, force=True)
        assert doctor.decrypt(target) == b"x"

    def test_a_text_is_neither_a_path_nor_bytes(self, doctor: Client):
        """The error asks which one is meant."""
        with pytest.raises(TypeError, match="path or text"):
            doctor.encrypt("hello", attrs=SECRET)

    @pytest.mark.parametrize(
        ("name", "word"), [("clearance=top", "unknown"), ("nope=1", "unknown"), ("x", "attribute")]
    )
    def test_an_unknown_attribute_lists_candidates(self, doctor: Client, name: str, word: str):
        """People see what they could have meant."""
        with pytest.raises(ConfigError, match=word) as caught:
            doctor.encrypt(b"x", attrs=name)
        assert caught.value.hint

    def test_garbage_is_not_a_sealed_file(self, doctor: Client):
        """Not a container at all."""
        with pytest.raises(FormatError):
            doctor.decrypt(b"garbage")

    def test_a_server_that_is_down_is_unavailable(self, doctor: Client):
        """Nobody listens there."""
        client = Client("http://127.0.0.1:9", token="x", ledger_key="k")

        with pytest.raises(UnavailableError):
            client.encrypt(b"x", attrs="clinic.example/clearance=secret")
        assert doctor.session.url.startswith("http://127.0.0.1:")

    def test_secrets_are_not_sent_by_plain_http(self):
        """Beyond loopback only https will do."""
        with pytest.raises(ConfigError, match="not https"):
            Client("http://kas.example", token="x")


class TestKeyServers:
    """Which servers are asked at all."""

    @pytest.mark.parametrize(
        "url",
        [
            "http://127.0.0.1:8080@evil.example",
            "http://127.0.0.1:8080.evil.example",
            "http://evil.example#@127.0.0.1:8080",
            "http:\\\\127.0.0.1:8080",
            "http://127.0.0.1.:8080",
            "http://[::ffff:127.0.0.1]:8080",
            "http://2130706433:8080",
            "http://127.1:8080",
            "http://127.0.0.1:8081",
            "https://127.0.0.1:8080",
            "ftp://127.0.0.1:8080",
            "http://169.254.169.254",
            "",
            "//127.0.0.1:8080",
            "http://\uff4bas.example",
            "http://127.0.0.1:99999",
        ],
    )
    def test_a_foreign_address_opens_no_socket(self, doctor: Client, url: str):
        """A file cannot make a client talk to a server of the file's choosing."""
        asked: list[str] = []
        send = doctor._transport.send  # noqa: SLF001 to see what is sent

        def watched(call: Call) -> Reply:
            asked.append(call.url)
            return send(call)

        doctor._transport.send = watched  # noqa: SLF001 restored below
        try:
            with pytest.raises(KasNotAllowedError):
                doctor.decrypt(addressed(url))
        finally:
            doctor._transport.send = send  # noqa: SLF001 as before
        assert all(item.startswith(doctor.session.url) for item in asked)

    def test_redirects_are_not_followed(self, tmp_path: Path):
        """A server that points elsewhere has not answered."""
        hits: list[str] = []

        class Redirecting(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hits.append(self.path)
                self.send_response(302)
                self.send_header("Location", f"http://127.0.0.1:{port}/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        httpd = ThreadingHTTPServer(("127.0.0.1", 0), Redirecting)
        port = httpd.server_port
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        try:
            with pytest.raises(UnavailableError):
                Client(f"http://127.0.0.1:{port}", token="x").encrypt(b"", attrs=())
        finally:
            httpd.shutdown()
            httpd.server_close()
            thread.join()
        assert "/elsewhere" not in hits
        assert tmp_path.exists()

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("https://KAS.example", "https://kas.example:443/"),
            ("http://127.0.0.1:80", "http://127.0.0.1/kas"),
        ],
    )
    def test_one_origin_has_one_spelling(self, one: str, other: str):
        """Case, default port and path do not matter."""
        assert origin(one) == origin(other)


class TestReceipts:
    """No receipt, no plaintext."""

    def test_a_release_without_its_receipt_is_refused(self, doctor: Client):
        """A KAS that strips the receipt has released nothing that counts."""
        sealed = doctor.encrypt(b"x", attrs=SECRET)

        with pytest.raises(ReceiptError), altered(doctor, drop_receipt):
            doctor.decrypt(sealed)

    def test_a_receipt_of_another_release_is_refused(self, doctor: Client):
        """A genuine receipt of an earlier request does not do."""
        sealed = doctor.encrypt(b"x", attrs=SECRET)
        with doctor.open(sealed) as reader:
            earlier = reader.receipt or ""

        with pytest.raises(ReceiptError), altered(doctor, lambda _: earlier):
            doctor.decrypt(sealed)

    def test_a_ledger_with_another_key_is_refused(self, running: Server, tmp_path: Path):
        """The pinned key decides, not what the server says of itself."""
        other = VerifierKey("envelock-other", bytes(range(32)))
        text = (running.data / "profiles" / "doctor.toml").read_text()
        profile = tmp_path / "doctor.toml"
        profile.write_text(text.replace(running.ledger_key, str(other)))

        with pytest.raises(ReceiptError):
            Client(profile=profile).encrypt(b"x", attrs="clinic.example/clearance=secret")

    def test_a_ledger_that_was_rolled_back_is_noticed(self, running: Server, tmp_path: Path):
        """A head larger than what the server shows: history was cut."""
        profile = tmp_path / "doctor.toml"
        profile.write_text((running.data / "profiles" / "doctor.toml").read_text())
        with Client(profile=profile) as client:
            sealed = client.encrypt(b"x", attrs=SECRET)
            client.decrypt(sealed)
            heads = Heads(profile.with_name("doctor.heads.json"))
            cut = Head(10_000_000, bytes(32))
            heads.advance(running.ledger_key, heads.newest(running.ledger_key), cut)

            with pytest.raises((ReceiptError, UnavailableError)):
                client.decrypt(sealed)

    def test_a_rewritten_history_is_noticed(self, running: Server, tmp_path: Path):
        """A head of the same size with another root: history was rewritten."""
        profile = tmp_path / "doctor.toml"
        profile.write_text((running.data / "profiles" / "doctor.toml").read_text())
        with Client(profile=profile) as client:
            sealed = client.encrypt(b"x", attrs=SECRET)
            client.decrypt(sealed)
            heads = Heads(profile.with_name("doctor.heads.json"))
            seen = heads.newest(running.ledger_key)
            heads.advance(running.ledger_key, seen, Head(seen.size, bytes(32)))

            with pytest.raises(ReceiptError):
                client.decrypt(sealed)

    def test_the_newest_head_is_kept(self, running: Server, tmp_path: Path):
        """Each release proves that the log only grew since the last one."""
        profile = tmp_path / "doctor.toml"
        profile.write_text((running.data / "profiles" / "doctor.toml").read_text())
        sizes = []
        with Client(profile=profile) as client:
            sealed = client.encrypt(b"x", attrs=SECRET)
            for _ in range(3):
                client.decrypt(sealed)
                heads = Heads(profile.with_name("doctor.heads.json"))
                sizes.append(heads.newest(running.ledger_key).size)

        assert sizes == sorted(set(sizes))

    def test_a_receipt_verifies_without_a_server(self, running: Server, doctor: Client):
        """Kept, it proves the release to anybody with the ledger's key."""
        with doctor.open(doctor.encrypt(b"x", attrs=SECRET)) as reader:
            text = reader.receipt or ""
        verified = Receipt.parse(text).verify(VerifierKey.parse(running.ledger_key))

        assert verified.fields["typ"] == "release"


class altered:  # noqa: N801 reads like a function
    """Alter the receipt of every rewrap answer on its way to the client."""

    def __init__(self, client: Client, change) -> None:
        self._client, self._change = client, change
        self._send = client._transport.send  # noqa: SLF001 restored at the end

    def __enter__(self) -> None:
        self._client._transport.send = self._altered  # noqa: SLF001 as above

    def __exit__(self, *_: object) -> None:
        self._client._transport.send = self._send  # noqa: SLF001 as above

    def _altered(self, call: Call) -> Reply:
        reply = self._send(call)
        if not call.url.endswith("/Rewrap"):
            return reply
        answer = json.loads(reply.body)
        metadata = answer["responses"][0]["results"][0]["metadata"]
        metadata["receipt"] = self._change(metadata["receipt"])
        if metadata["receipt"] is None:
            del metadata["receipt"]
        return Reply(reply.status, reply.headers, json.dumps(answer).encode())


def drop_receipt(_: str) -> None:
    """No receipt."""


def addressed(url: str) -> bytes:
    """A well-formed file whose key is said to be at *url*."""
    policy = write_policy("00000000-0000-4000-8000-000000000000", ())
    dek = bytes(range(32))
    key = KeyAccess(
        type="wrapped",
        url=url,
        wrappedKey=b64(bytes(256)),
        policyBinding=bind_policy(dek, policy),
        kid="a:v1",
    )
    return seal_bytes(b"x", SealPlan(dek, (key,), policy))


def test_reads_splits_over_two_key_servers():
    """Every split must be obtained; the data key is their sum."""
    policy = write_policy("00000000-0000-4000-8000-000000000000", ())
    shares = [bytes([n]) * 32 for n in (1, 2)]
    dek = bytes(a ^ b for a, b in zip(*shares, strict=True))
    keys = tuple(
        KeyAccess(
            type="wrapped",
            url=f"https://kas{n}.example",
            wrappedKey=b64(bytes(256)),
            policyBinding=bind_policy(share, policy),
            kid="a:v1",
            sid=f"s-{n}",
        )
        for n, share in enumerate(shares)
    )
    sealed = SealedFile.open(seal_bytes(b"split", SealPlan(dek, keys, policy)))

    assert sealed.unlock(sealed.join(dict(enumerate(shares)))).read() == b"split"
    with pytest.raises(TamperedError):
        sealed.join({0: shares[0]})


def test_import_loads_no_server_and_no_http():
    """`import envelock` is quick: HTTP and servers are loaded when needed."""
    program = (
        "import sys, envelock; envelock.Client;"
        "bad = {'aiohttp', 'urllib3', 'jwt', 'sqlite3', 'pkcs11', 'envelock_service', 'rich'};"
        "print(sorted(bad & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"

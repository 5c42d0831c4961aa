"""What a client makes of servers that lie, stall, or ask for more than is theirs."""

import json
import time
from pathlib import Path

import pytest
from sdk.hostile import CONFIGURATION, answering, as_json, kas

from envelock import Client, ConfigError, FormatError, UnavailableError
from envelock.exchange import Call
from envelock.opening import Unlocked
from envelock.profile import load_profile
from envelock.transport import SyncTransport
from envelock_ledger.note import VerifierKey

LEDGER_KEY = str(VerifierKey("envelock-other", bytes(range(32))))
FULL = "clinic.example/clearance=secret"
DEEP = b'{"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}"


def profile(folder: Path, url: str, **more: str) -> Path:
    """A profile of `doctor` with a secret at the KAS *url*."""
    (folder / "secret").write_text("the-secret")
    values = {"url": url, "client_id": "doctor", "client_secret_file": str(folder / "secret")}
    file = folder / "p.toml"
    file.write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in (values | more).items()))
    return file


class TestTokenEndpoint:
    """Who learns the client secret."""

    def test_a_kas_cannot_send_the_secret_elsewhere(self, tmp_path: Path):
        """Without a pin only the origin of the KAS itself will do."""
        with kas() as server, answering() as thief:
            named = {"idp": {"token_endpoint": f"{thief.url}/token"}}
            server.answers[CONFIGURATION] = as_json(named)
            with (
                Client(profile=profile(tmp_path, server.url)) as client,
                pytest.raises(ConfigError, match="not pinned"),
            ):
                client.encrypt(b"x", attrs=FULL)

        assert thief.asked == []

    def test_the_pinned_endpoint_is_the_only_one(self, tmp_path: Path):
        """A KAS that names another one is refused, even for one at its own origin."""
        with kas() as server, answering() as issuer:
            pinned = profile(tmp_path, server.url, token_endpoint=f"{issuer.url}/token")
            with (
                Client(profile=pinned) as client,
                pytest.raises(ConfigError, match="is pinned") as caught,
            ):
                client.encrypt(b"x", attrs=FULL)

        assert "envelock login" in (caught.value.hint or "")
        assert all(one.authorization is None for one in [*server.asked, *issuer.asked])

    def test_the_secret_goes_to_the_pinned_endpoint(self, tmp_path: Path):
        """Also when the KAS names none."""
        with kas() as server, answering() as issuer:
            server.answers[CONFIGURATION] = as_json({})
            issuer.answers["/token"] = as_json({"access_token": "a.b.c"})
            pinned = profile(tmp_path, server.url, token_endpoint=f"{issuer.url}/token")
            with Client(profile=pinned) as client:
                token = client.run(client.session.credentials.token(""))

        assert token.text == "a.b.c"

    def test_the_environment_pins_too(self, tmp_path: Path):
        """For those who have no profile."""
        file = profile(tmp_path, "http://127.0.0.1:1")
        environment = {"ENVELOCK_TOKEN_ENDPOINT": "https://issuer.example/token"}

        found = load_profile(file, environment)

        assert found.values.token_endpoint == "https://issuer.example/token"


class TestAnswers:
    """Malformed answers are errors of the family."""

    @pytest.mark.parametrize("text", ["\u00b2", "-1", "soon", "1e9"])
    def test_a_malformed_retry_after_is_passed_over(self, tmp_path: Path, text: str):
        """Digits of other scripts are none."""
        with kas() as server:
            server.answers["/v1/publickeys"] = as_json({}, 503, Retry_After=text)
            with (
                Client(profile=profile(tmp_path, server.url)) as client,
                pytest.raises(UnavailableError) as caught,
            ):
                client.encrypt(b"x", attrs=FULL)

        assert caught.value.retry_after is None

    def test_a_deep_error_is_an_error_without_detail(self, tmp_path: Path):
        """Nesting exhausts no stack."""
        with kas() as server:
            server.answers["/v1/publickeys"] = as_json(DEEP, 400)
            with (
                Client(profile=profile(tmp_path, server.url)) as client,
                pytest.raises(FormatError),
            ):
                client.encrypt(b"x", attrs=FULL)

    def test_a_deep_token_answer_is_malformed(self, tmp_path: Path):
        """The issuer's answer too."""
        with kas() as server:
            server.answers["/token"] = as_json(DEEP)
            with (
                Client(profile=profile(tmp_path, server.url)) as client,
                pytest.raises(UnavailableError, match="malformed"),
            ):
                client.encrypt(b"x", attrs=FULL)

    @pytest.mark.parametrize("count", [0, 2])
    def test_one_data_key_is_one(self, tmp_path: Path, count: int):
        """None and several are refused alike."""
        key = {"id": "0" * 32, "wrappedKey": "", "sealed": ""}
        with kas() as server:
            answer = {"kid": "a:b:v1", "url": server.url, "digest": "", "keys": [key] * count}
            server.answers["/v1/datakeys"] = as_json(answer)
            with (
                Client(profile=profile(tmp_path, server.url)) as client,
                pytest.raises(UnavailableError, match=f"and {count} came"),
            ):
                client.encrypt(b"x", attrs=FULL, online=True)

    @pytest.mark.parametrize("url", ["https://evil.example", "nowhere"])
    @pytest.mark.parametrize("online", [False, True])
    def test_files_name_the_kas_that_was_asked(self, tmp_path: Path, url: str, *, online: bool):
        """An answer cannot have them name another server."""
        published = {"kid": "a:b:v1", "algorithm": "ec", "pem": "", "path": "a:b", "receipt": ""}
        issued = {"kid": "a:b:v1", "digest": "", "keys": []}
        with kas() as server:
            server.answers["/v1/publickeys"] = as_json(published | {"url": url})
            server.answers["/v1/datakeys"] = as_json(issued | {"url": url})
            with (
                Client(profile=profile(tmp_path, server.url)) as client,
                pytest.raises(UnavailableError, match="the answer names"),
            ):
                client.encrypt(b"x", attrs=FULL, online=online)

    def test_a_malformed_public_key_is_an_error_of_the_server(self, tmp_path: Path):
        """Not of the caller's file."""
        with kas() as server:
            published = {"kid": "a:b:v1", "algorithm": "ec", "pem": "x", "path": "a:b"}
            full = published | {"receipt": "", "url": server.url}
            server.answers["/v1/publickeys"] = as_json(full)
            pinned = profile(tmp_path, server.url, ledger_key=LEDGER_KEY)
            with (
                Client(profile=pinned) as client,
                pytest.raises(UnavailableError, match="malformed"),
            ):
                client.encrypt(b"x", attrs=FULL)


def test_an_answer_that_drips_is_given_up():
    """Each byte arrives in time, and the answer does not."""

    def drip(request) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        for _ in range(60):
            try:
                request.wfile.write(b" ")
                request.wfile.flush()
            except OSError:
                return
            time.sleep(0.05)

    with answering() as server:
        server.answers["/"] = drip
        transport = SyncTransport(read_seconds=0.3)
        began = time.monotonic()
        reply = transport.send(Call("GET", f"{server.url}/", {}))
        took = time.monotonic() - began
        transport.close()

    assert (reply.status, reply.body) == (0, b"ReadTimeoutError")
    assert took < 2


def test_an_answer_that_is_cut_is_none():
    """Fewer bytes than were announced."""

    def cut(request) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        request.wfile.write(b"half")

    with answering() as server:
        server.answers["/"] = cut
        transport = SyncTransport()
        reply = transport.send(Call("GET", f"{server.url}/", {}))
        transport.close()

    assert reply.status == 0


def test_a_data_key_is_not_shown():
    """Not in logs of values either."""
    assert "KEY" not in repr(Unlocked(b"KEY", ()))

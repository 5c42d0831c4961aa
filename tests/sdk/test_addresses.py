"""W9: what a file, a redirect, a resolver or the environment may do to where a client connects."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sdk.hostile import CONFIGURATION, Answering, answering, as_json, kas
from sdk.test_client import addressed

from envelock import AsyncClient, Client, ConfigError, KasNotAllowedError, UnavailableError
from envelock.addresses import is_loopback, origin, private_origin
from envelock.exchange import Call
from envelock.transport import AsyncTransport, SyncTransport

TRUSTED = "https://kas.clinic.example"
REWRAP = "/kas.AccessService/Rewrap"

# Forms of an address that some parser reads as the trusted one, and another as somewhere else.
ELSEWHERE = {
    "user before the host": "https://kas.clinic.example@evil.example",
    "user and password": "https://kas.clinic.example:443@evil.example",
    "user with nothing behind": "https://evil.example@kas.clinic.example",
    "escaped at": "https://kas.clinic.example%40evil.example",
    "a domain below another": "https://kas.clinic.example.evil.example",
    "a prefix": "https://kas.clinic.example.evil",
    "a suffix": "https://evilkas.clinic.example",
    "a dash": "https://kas.clinic.example-evil.example",
    "fragment hides the host": "https://evil.example#@kas.clinic.example",
    "fragment": "https://kas.clinic.example#.evil.example",
    "query hides the host": "https://evil.example?@kas.clinic.example",
    "query": "https://kas.clinic.example?.evil.example",
    "backslashes": "https:\\\\kas.clinic.example",
    "backslash before the host": "https://evil.example\\@kas.clinic.example",
    "backslash after it": "https://kas.clinic.example\\.evil.example",
    "trailing dot": "https://kas.clinic.example.",
    "two dots": "https://kas..clinic.example",
    "leading dot": "https://.kas.clinic.example",
    "no slashes": "https:kas.clinic.example",
    "one slash": "https:/kas.clinic.example",
    "three slashes": "https:///kas.clinic.example",
    "no scheme": "//kas.clinic.example",
    "nothing but the host": "kas.clinic.example",
    "another scheme": "ftp://kas.clinic.example",
    "a file": "file://kas.clinic.example/etc/passwd",
    "javascript": "javascript://kas.clinic.example/%0aalert(1)",
    "unix socket": "http+unix://kas.clinic.example",
    "plain http": "http://kas.clinic.example",
    "another port": "https://kas.clinic.example:8443",
    "the other default port": "https://kas.clinic.example:80",
    "port zero": "https://kas.clinic.example:0",
    "port too large": "https://kas.clinic.example:65979",
    "port with a sign": "https://kas.clinic.example:+443",
    "port with a space": "https://kas.clinic.example: 443",
    "port with an underscore": "https://kas.clinic.example:4_43",
    "port in other digits": "https://kas.clinic.example:\u0664\u0664\u0663",
    "port that is a word": "https://kas.clinic.example:https",
    "two ports": "https://kas.clinic.example:443:80",
    "white space before": " https://kas.clinic.example",
    "white space behind": "https://kas.clinic.example ",
    "tab inside": "https://kas.cli\tnic.example",
    "line feed inside": "https://kas.clinic.example\n.evil.example",
    "carriage return": "https://kas.clinic.example\r\nHost: evil.example",
    "NUL": "https://kas.clinic.example\x00.evil.example",
    "DEL": "https://kas.clinic.example\x7f",
    "escaped dot": "https://kas%2eclinic.example",
    "escaped letter": "https://%6bas.clinic.example",
    "fullwidth letter": "https://\uff4bas.clinic.example",
    "fullwidth dot": "https://kas\uff0eclinic.example",
    "ideographic full stop": "https://kas\u3002clinic.example",
    "Cyrillic letter": "https://k\u0430s.clinic.example",
    "its punycode": "https://xn--ks-7lc.clinic.example",
    "sharp s": "https://ka\u00df.clinic.example",
    "long s": "https://ka\u017f.clinic.example",
    "Kelvin sign": "https://\u212aas.clinic.example",
    "soft hyphen": "https://ka\u00ads.clinic.example",
    "zero width joiner": "https://kas\u200d.clinic.example",
    "right-to-left override": "https://\u202eelpmaxe.cinilc.sak",
    "combining mark": "https://kas\u0301.clinic.example",
    "division slash": "https://kas.clinic.example\u2215.evil.example",
    "empty": "",
    "no host": "https://",
    "brackets": "https://[kas.clinic.example]",
    "open bracket": "https://[kas.clinic.example",
}
LOOPBACKS = {
    "mapped": "http://[::ffff:127.0.0.1]:8080",
    "mapped in hex": "http://[::ffff:7f00:1]:8080",
    "compatible": "http://[::127.0.0.1]:8080",
    "NAT64": "http://[64:ff9b::7f00:1]:8080",
    "IPv6": "http://[::1]:8080",
    "IPv6 in full": "http://[0:0:0:0:0:0:0:1]:8080",
    "zone": "http://[::1%25lo]:8080",
    "zone unescaped": "http://[fe80::1%lo]:8080",
    "link local": "http://[fe80::1]:8080",
    "decimal": "http://2130706433:8080",
    "hexadecimal": "http://0x7f000001:8080",
    "octal": "http://0177.0.0.1:8080",
    "short": "http://127.1:8080",
    "leading zeros": "http://127.000.000.001:8080",
    "another of its net": "http://127.0.0.2:8080",
    "everything": "http://0.0.0.0:8080",
    "everything, IPv6": "http://[::]:8080",
    "zero": "http://0:8080",
    "its name": "http://localhost:8080",
    "below its name": "http://localhost.evil.example:8080",
    "trailing dot": "http://127.0.0.1.:8080",
    "five parts": "http://127.0.0.1.1:8080",
    "over a byte": "http://127.0.0.257:8080",
    "metadata service": "http://169.254.169.254",
    "metadata service, mapped": "http://[::ffff:169.254.169.254]",
    "private": "http://10.0.0.1:8080",
    "https": "https://127.0.0.1:8080",
    "user": "http://127.0.0.1:8080@evil.example",
    "subdomain": "http://127.0.0.1:8080.evil.example",
    "other port": "http://127.0.0.1:8081",
}


class TestSpellings:
    """One origin, one text."""

    @pytest.mark.parametrize("url", ELSEWHERE.values(), ids=ELSEWHERE)
    def test_a_form_of_a_name_is_another_server_or_none(self, url: str):
        """Refused, or an origin that is not the trusted one."""
        try:
            found = origin(url)
        except ConfigError:
            return
        assert found != origin(TRUSTED)

    @pytest.mark.parametrize("url", LOOPBACKS.values(), ids=LOOPBACKS)
    def test_a_form_of_an_address_is_another_server_or_none(self, url: str):
        """Also where a socket would reach the very same one: nothing is guessed."""
        try:
            found = origin(url)
        except ConfigError:
            return
        assert found != origin("http://127.0.0.1:8080")

    @pytest.mark.parametrize(
        "url",
        ["HTTPS://kas.clinic.example", "https://KAS.Clinic.EXAMPLE", "https://kas.clinic.example:443",
         "https://kas.clinic.example/", "https://kas.clinic.example/kas",
         "https://kas.clinic.example:0443", "https://kas.clinic.example/../evil.example"],
    )  # fmt: skip
    def test_what_is_the_same_server_has_the_same_spelling(self, url: str):
        """Case, the default port and a path say nothing else; no path is ever followed."""
        assert origin(url) == origin(TRUSTED) == "https://kas.clinic.example:443"

    @pytest.mark.parametrize(
        "url",
        ["http://kas.clinic.example", "http://10.0.0.1", "http://0.0.0.0", "http://127.1",
         "http://2130706433", "http://[::ffff:127.0.0.1]", "http://localhost.evil.example",
         "http://127.0.0.2"],
    )  # fmt: skip
    def test_plain_http_is_for_literal_loopback_alone(self, url: str):
        """A profile cannot send tokens over a line by a form that only looks like this machine."""
        with pytest.raises(ConfigError):
            private_origin(url)

    @pytest.mark.parametrize(
        ("address", "own"),
        [("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("::ffff:127.0.0.1", True),
         ("::1%lo", True), ("10.0.0.1", False), ("169.254.169.254", False), ("::", False),
         ("0.0.0.1", False), ("::ffff:10.0.0.1", False), ("fe80::1%eth0", False),
         ("localhost", False), ("", False)],
    )  # fmt: skip
    def test_knows_its_own_addresses(self, address: str, *, own: bool):
        """As a socket tells them."""
        assert is_loopback(address) is own


@pytest.fixture(scope="module")
def ours() -> Iterator[Answering]:
    """A KAS that says what it is, and answers nothing else."""
    with kas() as found:
        yield found


class TestFiles:
    """A file names a server; the client decides."""

    @pytest.mark.parametrize("url", [*ELSEWHERE.values(), *LOOPBACKS.values()])
    def test_a_foreign_address_costs_no_connection(self, ours: Answering, url: str):
        """Whatever the file says: our own KAS is asked what it is, and nobody anything else."""
        ours.asked.clear()
        connected: list[str] = []
        with Client(ours.url, token="x") as client:
            send = client._transport.send  # noqa: SLF001 to see what is sent

            def watched(call: Call):
                connected.append(call.url)
                return send(call)

            client._transport.send = watched  # noqa: SLF001 as above
            with pytest.raises(KasNotAllowedError):
                client.decrypt(addressed(url))

        assert connected == [f"{ours.url}{CONFIGURATION}"]
        assert [one.path for one in ours.asked] == [CONFIGURATION]


class TestRedirects:
    """An answer that points elsewhere is no answer."""

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    @pytest.mark.parametrize("path", [CONFIGURATION, REWRAP])
    async def test_none_is_followed_by_either_client(
        self, status: int, path: str, monkeypatch: pytest.MonkeyPatch
    ):
        """To another server, another scheme, or the metadata service: no request, no token."""
        monkeypatch.setattr("envelock.session.FIRST_PAUSE_SECONDS", 0.001)
        with answering() as elsewhere, kas() as server:
            for target in (f"{elsewhere.url}{path}", "http://169.254.169.254/latest", "//evil"):
                server.answers[path] = as_json({}, status, Location=target)
                with (
                    Client(server.url, token="secret-token") as client,
                    pytest.raises(UnavailableError),
                ):
                    await asyncio.to_thread(client.decrypt, addressed(server.url))
                async with AsyncClient(server.url, token="secret-token") as other:
                    with pytest.raises(UnavailableError):
                        await other.decrypt(addressed(server.url))

        assert elsewhere.asked == []


class TestResolvers:
    """A name is what a resolver makes of it."""

    @pytest.mark.parametrize("transport", ["blocking", "asynchronous"])
    async def test_a_name_for_loopback_that_leads_elsewhere_gets_no_byte(
        self, transport: str, monkeypatch: pytest.MonkeyPatch
    ):
        """`localhost`, rebound to another address: the connection ends before it says anything."""
        with listening() as (host, port, said):
            monkeypatch.setattr(socket, "getaddrinfo", rebinding(host))
            reply = await sent(transport, f"http://localhost:{port}/")

        assert reply.status == 0
        assert said == []

    @pytest.mark.parametrize("transport", ["blocking", "asynchronous"])
    async def test_a_name_for_loopback_that_leads_there_is_used(self, transport: str):
        """As everybody writes it in development."""
        with answering() as found:
            found.answers["/"] = as_json({"here": True})
            reply = await sent(transport, found.url.replace("127.0.0.1", "localhost") + "/")

        assert (reply.status, reply.body) == (200, b'{"here": true}')

    @pytest.mark.parametrize("transport", ["blocking", "asynchronous"])
    async def test_proxies_of_the_environment_are_not_used(
        self, transport: str, monkeypatch: pytest.MonkeyPatch
    ):
        """Tokens go to the server that was named."""
        with answering() as proxy, answering() as found:
            for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
                monkeypatch.setenv(name, proxy.url)
            found.answers["/"] = as_json({})
            reply = await sent(transport, f"{found.url}/")

        assert reply.status == 200
        assert proxy.asked == []


class TestDecisionPoints:
    """The KAS says where attributes are looked up, with the caller's token."""

    @pytest.mark.parametrize(
        "pdp",
        ["http://pdp.example", "http://10.0.0.1:8080", "ftp://127.0.0.1", "https://a@b.example"],
    )
    def test_an_address_in_the_clear_gets_no_token(self, pdp: str):
        """Not even one that the caller's own KAS names."""
        said = {"kas_id": "k", "url": "https://kas.example", "pdp": pdp}
        with (
            kas(envelock=said) as server,
            Client(server.url, token="secret-token", ledger_key="k") as client,
            pytest.raises(ConfigError),
        ):
            client.encrypt(b"x", attrs="clearance=secret")

        assert [one.path for one in server.asked] == [CONFIGURATION]


async def sent(transport: str, url: str):
    """The reply to a request over one of the transports."""
    call = Call("GET", url, {"Authorization": "Bearer secret-token"})
    if transport == "blocking":
        blocking = SyncTransport(read_seconds=5)
        try:
            return await asyncio.to_thread(blocking.send, call)
        finally:
            blocking.close()
    asynchronous = AsyncTransport()
    try:
        return await asynchronous.send(call)
    finally:
        await asynchronous.close()


def rebinding(host: str):
    """A resolver for which `localhost` is *host*."""
    real = socket.getaddrinfo

    def resolve(name, *more, **named):
        return real(host if name in {"localhost", b"localhost"} else name, *more, **named)

    return resolve


@contextmanager
def listening() -> Iterator[tuple[str, int, list[bytes]]]:
    """A listener on an address of this machine that is not loopback; what it was sent."""
    said: list[bytes] = []
    host = _own_address()
    with socket.create_server((host, 0)) as listener:
        listener.settimeout(0.1)
        stopping = threading.Event()

        def listen() -> None:
            while not stopping.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.settimeout(0.5)
                    try:
                        said.extend(filter(None, [connection.recv(1000)]))
                    except OSError:
                        continue

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield host, listener.getsockname()[1], said
        finally:
            stopping.set()
            thread.join()


def _own_address() -> str:
    """An address of this machine beside loopback; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has loopback alone")
        return str(probe.getsockname()[0])

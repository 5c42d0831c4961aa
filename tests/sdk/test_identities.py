"""Clients of several people at one deployment: what they share, and what is each one's own."""

import asyncio
import fcntl
import io
import json
import shutil
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sdk.hostile import Answering, as_json, kas

import envelock_policies
from envelock import AsyncClient, Client, ReceiptError, UnavailableError
from envelock.exchange import Call, Reply
from envelock.opening import unlock
from envelock.reader import SealedFile
from envelock.sealing import planned
from envelock.state import Head
from envelock.testing import Server, server
from envelock.writer import SealPlan, seal_bytes
from envelock_formats.framing import b64
from envelock_formats.tdf.keyaccess import KeyAccess
from envelock_formats.wire import (
    RewrapBody,
    read_request_token,
    read_rewrap,
    read_seal,
    write_request_token,
)
from envelock_formats.wrap import agree, ec_from_pem, public_pem, seal_share

FULL = "clinic.example/clearance=secret"


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Server]:
    """One deployment of two tenants."""
    bundles = tmp_path_factory.mktemp("bundles")
    shipped = Path(str(envelock_policies.path("saas")))
    for folder in [Path(str(envelock_policies.path("clinic"))), *shipped.iterdir()]:
        if (folder / "bundle.toml").exists():
            shutil.copytree(folder, bundles / folder.name)
    with server(bundles) as found:
        yield found


@pytest.fixture
def doctor(running: Server, tmp_path: Path) -> Iterator[Client]:
    """A client of the clinic, with a fresh profile."""
    with Client(profile=profile(running, "doctor", tmp_path)) as client:
        yield client


def profile(running: Server, name: str, folder: Path) -> Path:
    """A copy of the profile of *name*."""
    return Path(shutil.copy(running.data / "profiles" / f"{name}.toml", folder))


def bearer(running: Server, name: str) -> str:
    """An unbound token, as a web application has one of its user."""
    secret = (running.data / "secrets" / f"client-{name}.secret").read_text().strip()
    form = {"grant_type": "client_credentials", "client_id": name, "client_secret": secret}
    request = Request(f"{running.issuer}/token", urlencode(form).encode())  # noqa: S310 loopback
    with urlopen(request) as answer:  # noqa: S310 loopback
        return str(json.load(answer)["access_token"])


def key_of(sealed: bytes) -> dict:
    """The first key access object of a sealed file."""
    manifest = zipfile.ZipFile(io.BytesIO(sealed)).read("0.manifest.json")
    return json.loads(manifest)["encryptionInformation"]["keyAccess"][0]


class TestOwn:
    """What is never shared."""

    def test_a_brought_token_seals_under_its_own_tenant(self, running: Server, doctor: Client):
        """The key that one tenant was answered is not another's."""
        doctor.encrypt(b"warm", attrs=FULL)
        ada = doctor.with_token(bearer(running, "ada"))

        assert key_of(ada.encrypt(b"y", attrs=()))["kid"].startswith("acme:")
        assert key_of(doctor.encrypt(b"y", attrs=FULL))["kid"].startswith("clinic:")

    def test_a_brought_tokens_answers_are_not_on_disk(
        self, running: Server, doctor: Client, tmp_path: Path
    ):
        """They end with its client."""
        doctor.with_token(bearer(running, "ada")).encrypt(b"y", attrs=())

        assert not (tmp_path / "doctor.state.json").exists()

    def test_the_environments_client_id_is_another_identity(
        self, running: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """Laid over a profile, it finds none of the profile's answers."""
        folder = tmp_path / "config" / "envelock"
        folder.mkdir(parents=True)
        profile(running, "doctor", folder).rename(folder / "default.toml")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
        with Client() as client:
            client.encrypt(b"warm", attrs=FULL)
        monkeypatch.setenv("ENVELOCK_CLIENT_ID", "ada")
        secret = running.data / "secrets" / "client-ada.secret"
        monkeypatch.setenv("ENVELOCK_CLIENT_SECRET_FILE", str(secret))

        with Client() as client:
            sealed = client.encrypt(b"y", attrs=())

        assert key_of(sealed)["kid"].startswith("acme:")

    def test_one_clients_answers_last_for_the_next(self, running: Server, tmp_path: Path):
        """The same identity finds its key again."""
        file = profile(running, "doctor", tmp_path)
        with Client(profile=file) as first:
            first.encrypt(b"x", attrs=FULL)
        asked: list[str] = []
        with Client(profile=file) as second:
            watch(second, asked)
            second.encrypt(b"x", attrs=FULL)

        assert asked == []


class TestShared:
    """Heads belong to all."""

    def test_a_rollback_that_one_could_see_the_other_sees(self, running: Server, doctor: Client):
        """Also when the other brings a token."""
        sealed = doctor.encrypt(b"x", attrs=FULL)
        doctor.decrypt(sealed)
        seen = doctor.session.heads.newest(running.ledger_key)
        doctor.session.heads.advance(running.ledger_key, seen, Head(seen.size, bytes(32)))

        with pytest.raises(ReceiptError):
            doctor.with_token(bearer(running, "doctor")).decrypt(sealed)

    def test_they_are_shared_without_a_file_too(self):
        """In memory, where the profile has none."""
        client = Client("http://127.0.0.1:9", token="one", ledger_key="k")
        other = client.with_token("two")

        assert other.session.heads is client.session.heads


class TestPublishedKeys:
    """A genuine record of another key is no receipt of the one that was asked for."""

    def test_of_another_dataset(self, running: Server, doctor: Client):
        """The path has to name the dataset."""
        other = answer_to(running.client("operator@globex"), "dataset=open")

        with pytest.raises(ReceiptError, match="dataset 'secret'"):
            asked_with(doctor, "/v1/publickeys", lambda _: other, dataset="secret")

    @pytest.mark.parametrize("member", ["kid", "path"])
    def test_of_another_name(self, doctor: Client, member: str):
        """Id and path are of one key."""
        changed = {"kid": "clinic:other:v1", "path": "clinic:other"}[member]

        with pytest.raises(ReceiptError):
            asked_with(doctor, "/v1/publickeys", lambda answer: answer | {member: changed})

    def test_in_a_ledger_smaller_than_was_seen(self, running: Server, doctor: Client):
        """History was cut."""
        doctor.session.heads.advance(running.ledger_key, None, Head(10_000_000, bytes(32)))

        with pytest.raises(ReceiptError, match="were seen"):
            doctor.encrypt(b"x", attrs=FULL)

    def test_in_a_ledger_as_large_with_another_root(self, running: Server, doctor: Client):
        """History was rewritten."""
        doctor.encrypt(b"x", attrs=FULL)
        seen = doctor.session.heads.newest(running.ledger_key)
        doctor.session.heads.advance(running.ledger_key, seen, Head(seen.size, bytes(32)))

        with pytest.raises(ReceiptError, match="were seen"):
            doctor.run(doctor.session.published_key("records"))


class TestIssue:
    """Data keys made online."""

    @pytest.mark.parametrize("named", ["clinic:gone:v9", "{path}:v9", "no key id"])
    def test_the_answer_names_the_key_that_the_record_names(self, doctor: Client, named: str):
        """Another in the file would keep it from opening, noticed too late."""

        def renamed(answer: dict) -> dict:
            path = answer["kid"].rpartition(":")[0]
            return answer | {"kid": named.format(path=path)}

        with pytest.raises(ReceiptError):
            asked_with(doctor, "/v1/datakeys", renamed, online=True)

    def test_the_answer_names_the_server_that_was_asked(self, doctor: Client):
        """The same, of the address."""
        elsewhere = {"url": "https://evil.example"}

        with pytest.raises(UnavailableError):
            asked_with(doctor, "/v1/datakeys", lambda answer: answer | elsewhere, online=True)

    def test_the_key_is_of_the_dataset_that_was_asked_for(self, doctor: Client):
        """A genuine answer about another dataset does not do."""
        send = doctor._transport.send  # noqa: SLF001 to ask for something else
        body = write_for(doctor, "vault")

        def swapped(call: Call) -> Reply:
            return send(replace(call, body=body(call)) if "datakeys" in call.url else call)

        doctor._transport.send = swapped  # noqa: SLF001 as above

        with pytest.raises(ReceiptError, match="dataset 'labs'"):
            doctor.run(planned(doctor.session, FULL, "labs", online=True))

    def test_the_digest_is_the_records(self, doctor: Client):
        """What the answer says beside it does not count."""
        ready = asked_with(
            doctor, "/v1/datakeys", lambda answer: answer | {"digest": "00" * 32}, online=True
        )

        assert len(ready.dek) == 32


class TestOpening:
    """What a rewrap is compared with."""

    def test_a_token_dropped_meanwhile_is_no_false_alarm(self, doctor: Client):
        """Another thread's 401 changes nothing about the request that was made."""
        sealed = SealedFile.open(doctor.encrypt(b"x", attrs=FULL), legacy=False)
        steps = unlock(doctor.session, sealed)
        send = doctor._transport.send  # noqa: SLF001 to act between request and answer

        def dropping(call: Call) -> Reply:
            reply = send(call)
            if call.url.endswith("/Rewrap"):
                doctor.session.credentials.forget()
            return reply

        doctor._transport.send = dropping  # noqa: SLF001 as above

        assert len(doctor.run(steps).receipts) == 1

    def test_a_foreign_kas_owes_no_receipt_of_our_ledger(
        self, running: Server, doctor: Client, tmp_path: Path
    ):
        """One that the profile lists is not told what we saw, and what it says is no receipt."""
        file = profile(running, "doctor", tmp_path)
        plan = doctor.run(planned(doctor.session, FULL, None, online=False))
        with kas() as foreign, (tmp_path / "doctor.toml").open("a") as listed:
            listed.write(f'kas = ["{foreign.url}"]\n')
            listed.flush()
            foreign.answers["/kas.AccessService/Rewrap"] = releasing(foreign, plan.dek)
            sealed = located(plan, foreign.url)
            with Client(profile=file) as client, client.open(sealed) as reader:
                opened = (reader.read(), reader.receipt)

        assert opened == (b"x", None)
        assert [one.path for one in foreign.asked] == ["/kas.AccessService/Rewrap"]
        assert asked_body(foreign.asked[0].body).seen is None


class TestAsynchronously:
    """The event loop waits for no file."""

    async def test_a_profile_in_use_does_not_stop_the_loop(self, running: Server, tmp_path: Path):
        """Another process has its turn at the heads; others of the loop go on meanwhile."""
        async with AsyncClient(profile=profile(running, "doctor", tmp_path)) as client:
            sealed = await client.encrypt(b"x", attrs=FULL)
            with (tmp_path / "doctor.heads.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                release = threading.Timer(0.5, fcntl.flock, (lock, fcntl.LOCK_UN))
                release.start()
                opening = asyncio.create_task(client.decrypt(sealed))
                longest = 0.0
                while not opening.done():
                    began = time.monotonic()
                    await asyncio.sleep(0.01)
                    longest = max(longest, time.monotonic() - began)
                release.join()

        assert await opening == b"x"
        assert longest < 0.3


def asked_body(message: bytes) -> RewrapBody:
    """What a rewrap asks, as the server reads it."""
    token = read_request_token(json.loads(message)["signedRequestToken"], None, int(time.time()))
    return read_rewrap(token.body)


def releasing(server: Answering, dek: bytes):
    """A rewrap that releases *dek*, with a receipt that nobody made."""

    def answer(request) -> None:
        client = ec_from_pem(asked_body(server.asked[-1].body).clientPublicKey)
        session = ec.generate_private_key(ec.SECP256R1())
        share = b64(seal_share(agree(session, client), dek, bytes(12)))
        result = {"keyAccessObjectId": "kao-0", "status": "permit", "kasWrappedKey": share}
        result["metadata"] = {"receipt": "anything"}
        responses = [{"policyId": "policy", "results": [result]}]
        pem = public_pem(session.public_key())
        as_json({"responses": responses, "sessionPublicKey": pem})(request)

    return answer


def write_for(client: Client, dataset: str):
    """Requests for data keys of *dataset*, whatever the client meant to ask for."""

    def write(call: Call) -> bytes:
        text = json.loads(call.body)["signedRequestToken"]
        asked = read_seal(read_request_token(text, None, int(time.time())).body)
        changed = msgspec.structs.replace(asked, dataset=dataset)
        token = write_request_token(changed, client.session.credentials.key, now=int(time.time()))
        return json.dumps({"signedRequestToken": token}).encode()

    return write


def watch(client: Client, asked: list[str]) -> None:
    """Note every address that *client* asks."""
    send = client._transport.send  # noqa: SLF001 to see what is sent

    def watched(call: Call) -> Reply:
        asked.append(call.url)
        return send(call)

    client._transport.send = watched  # noqa: SLF001 as above


def answer_to(client: Client, query: str) -> dict:
    """What the KAS answers *client* about a public key."""
    path = f"/v1/publickeys?{query.replace(':', '%3A')}"
    return json.loads(client.run(client.session.operate("GET", path, {})))


def asked_with(client: Client, path: str, change, *, dataset=None, online=False):
    """A plan for a file, made while *change* alters the answers at *path*."""
    send = client._transport.send  # noqa: SLF001 to alter what comes

    def altered(call: Call) -> Reply:
        reply = send(call)
        if path not in call.url or reply.status != 200:
            return reply
        return replace(reply, body=json.dumps(change(json.loads(reply.body))).encode())

    client._transport.send = altered  # noqa: SLF001 as above
    return client.run(planned(client.session, FULL, dataset, online=online))


def located(plan: SealPlan, url: str) -> bytes:
    """A file of *plan* whose key is at *url*."""
    fields = {name: getattr(plan.key_access[0], name) for name in KeyAccess.__struct_fields__}
    return seal_bytes(b"x", replace(plan, key_access=(KeyAccess(**fields | {"url": url}),)))

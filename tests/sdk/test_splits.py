"""Keys split over several key access servers: sealed, opened, and refused, with three of them."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from e2e.shell import Shell
from formats.sealing import pack

from envelock import (
    AsyncClient,
    Client,
    ConfigError,
    DeniedError,
    KasNotAllowedError,
    NotAuthenticatedError,
    TamperedError,
    UnavailableError,
)
from envelock.exchange import Call, Reply
from envelock.reader import SealedFile
from envelock.sealing import planned
from envelock.testing import Server, server
from envelock.writer import seal_bytes
from envelock_formats.framing import b64
from envelock_formats.tdf.keyaccess import KeyAccess, binding_holds
from envelock_formats.tdf.manifest import write_manifest
from envelock_formats.wire import read_request_token, read_rewrap
from envelock_formats.wrap import agree, public_pem, seal_share
from envelock_ledger.note import VerifierKey
from envelock_ledger.proof import Receipt

SECRET = "clinic.example/clearance=secret"
NAMES = ("clinic", "lab", "backup")


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Server]]:
    """Three deployments that know nothing of each other."""
    with (
        server(kas_url="https://kas.clinic.example") as clinic,
        server(kas_url="https://kas.lab.example") as lab,
        server(kas_url="https://kas.backup.example") as backup,
    ):
        yield dict(zip(NAMES, (clinic, lab, backup), strict=True))


@dataclass
class Three:
    """The same person at three servers."""

    clinic: Client
    lab: Client
    backup: Client


@pytest.fixture
def doctors(servers: dict[str, Server]) -> Three:
    """A doctor everywhere."""
    return Three(*(servers[name].client("doctor") for name in NAMES))


def opened(client: Client, sealed: bytes, *peers: Client) -> bytes:
    """What *client* reads of a file, with *peers* beside it."""
    return client.with_peers(*peers).decrypt(sealed)


@contextmanager
def watched(client: Client, change=lambda _call, reply: reply) -> Iterator[list[str]]:
    """The addresses of rewraps that go over the pool of *client*, while *change* alters replies."""
    send, asked = client._transport.send, []  # noqa: SLF001 to see what is sent

    def sending(call: Call) -> Reply:
        if call.url.endswith("/Rewrap"):
            asked.append(call.url.removesuffix("/kas.AccessService/Rewrap"))
        return change(call, send(call))

    client._transport.send = sending  # noqa: SLF001 restored below
    try:
        yield asked
    finally:
        client._transport.send = send  # noqa: SLF001 as before


def down(*gone: Client):
    """A change after which the servers of *gone* do not answer."""
    urls = tuple(client.session.url for client in gone)
    return lambda call, reply: Reply(0, {}, b"gone") if call.url.startswith(urls) else reply


class TestAllOf:
    """Every split is needed."""

    def test_opens_with_all_in_any_order(self, doctors: Three):
        """Whoever asks first, and whichever way the manifest lists them."""
        clinic, lab = doctors.clinic, doctors.lab
        files = [clinic.encrypt(b"both", attrs=SECRET, splits=order)
                 for order in ([clinic, lab], [lab, clinic])]  # fmt: skip

        for sealed in files:
            assert opened(clinic, sealed, lab) == b"both"
            assert opened(lab, sealed, doctors.backup, clinic) == b"both"

    def test_each_server_has_a_random_share_and_nobody_the_key(self, doctors: Three):
        """Shares differ between servers and files; no share is the key, and split ids are fresh."""
        over = [[doctors.clinic.session], [doctors.lab.session], [doctors.backup.session]]
        plans = [
            doctors.clinic.run(
                planned(doctors.clinic.session, SECRET, None, online=False, splits=over)
            )
            for _ in range(2)
        ]
        keys = [key for plan in plans for key in plan.key_access]

        assert len({key.sid for key in keys}) == len({key.wrappedKey for key in keys}) == 6
        assert len({key.policyBinding for key in keys}) == 6
        assert not any(
            binding_holds(plan.dek, plan.policy, key.policyBinding)
            for plan in plans
            for key in plan.key_access
        )
        assert [key.url for key in plans[0].key_access] == [
            "https://kas.clinic.example", "https://kas.lab.example", "https://kas.backup.example",
        ]  # fmt: skip

    def test_a_server_that_may_not_be_asked_is_named_and_none_is_asked(self, doctors: Three):
        """A share that cannot be had costs no release of another."""
        sealed = doctors.clinic.encrypt(b"x", attrs=SECRET, splits=[doctors.clinic, doctors.lab])

        with (
            watched(doctors.clinic) as asked,
            pytest.raises(KasNotAllowedError, match=r"'https://kas\.lab\.example'"),
        ):
            opened(doctors.clinic, sealed, doctors.backup)
        assert asked == []

    def test_a_server_that_does_not_answer_is_named(self, doctors: Three):
        """Known beforehand, or found out while asking."""
        sealed = doctors.clinic.encrypt(b"x", attrs=SECRET, splits=[doctors.clinic, doctors.lab])
        together = doctors.clinic.with_peers(doctors.lab)

        def no_rewrap(call: Call, reply: Reply) -> Reply:
            at_lab = call.url.startswith(doctors.lab.session.url)
            return Reply(503, {}, b"{}") if at_lab and call.url.endswith("/Rewrap") else reply

        for change in (no_rewrap, down(doctors.lab)):
            doctors.lab.session._configurations.clear()  # noqa: SLF001 as if just started
            with watched(doctors.clinic, change), pytest.raises(UnavailableError) as caught:
                together.decrypt(sealed)
            assert caught.value.server == doctors.lab.session.url
            assert doctors.lab.session.url in str(caught.value)

    def test_a_server_that_refuses_is_named(self, servers, doctors: Three):
        """The policy of one organisation is enough to keep a file shut."""
        sealed = doctors.clinic.encrypt(b"x", attrs=SECRET, splits=[doctors.clinic, doctors.lab])

        with pytest.raises(DeniedError) as caught:
            opened(doctors.clinic, sealed, servers["lab"].client("accountant"))
        assert caught.value.server == doctors.lab.session.url
        assert (caught.value.request_id or "").startswith("r-")

    def test_there_is_a_receipt_of_every_ledger(self, servers, doctors: Three, tmp_path: Path):
        """Each proves its own release, under its own key; the asker's own stands first."""
        sealed = doctors.clinic.encrypt(b"x", attrs=SECRET, splits=[doctors.lab, doctors.clinic])
        result = doctors.clinic.with_peers(doctors.lab).decrypt(sealed, tmp_path / "out")

        assert result.receipt == result.receipts[0]
        for text, name in zip(result.receipts, ("clinic", "lab"), strict=True):
            key = VerifierKey.parse(servers[name].ledger_key)
            assert Receipt.parse(text).verify(key).fields["typ"] == "release"

    def test_a_wrong_share_is_noticed_at_once_and_the_server_named(self, doctors: Three):
        """A server that gives other bytes under a genuine receipt fails the policy binding."""
        sealed = doctors.clinic.encrypt(b"x", attrs=SECRET, splits=[doctors.clinic, doctors.lab])

        with (
            watched(doctors.clinic, wrong_share(doctors.lab)),
            pytest.raises(TamperedError, match="does not fit the policy") as caught,
        ):
            opened(doctors.clinic, sealed, doctors.lab)
        assert caught.value.server == doctors.lab.session.url

    def test_a_wrong_share_never_opens_even_when_it_is_bound(self, doctors: Three):
        """Without the binding's check the root signature still fails."""
        over = [[doctors.clinic.session], [doctors.lab.session]]
        plan = doctors.clinic.run(
            planned(doctors.clinic.session, SECRET, None, online=False, splits=over)
        )
        sealed = SealedFile.open(seal_bytes(b"x", plan))

        with pytest.raises(TamperedError):
            sealed.unlock(sealed.join({0: bytes(31) + b"\1", 1: bytes(31) + b"\2"}))

    @pytest.mark.parametrize("game", ["remove", "merge", "swap"])
    def test_a_manifest_that_plays_games_does_not_open(self, doctors: Three, game: str):
        """W10: a share left out, two splits made one, or shares that change places."""
        over = [[doctors.clinic.session], [doctors.lab.session]]
        plan = doctors.clinic.run(
            planned(doctors.clinic.session, SECRET, None, online=False, splits=over)
        )
        one, two = plan.key_access
        keys = {
            "remove": (one,),
            "merge": (one, msgspec.structs.replace(two, sid=one.sid)),
            "swap": (msgspec.structs.replace(one, url=two.url),
                     msgspec.structs.replace(two, url=one.url)),
        }[game]  # fmt: skip
        changed = repacked(seal_bytes(b"x", plan), keys)

        with pytest.raises(TamperedError):
            opened(doctors.clinic, changed, doctors.lab)


class TestAnyOf:
    """The servers of one split are alternatives."""

    def test_one_of_them_is_enough_and_only_one_is_asked(self, doctors: Three):
        """No release in vain: whoever asks, its own server is asked first."""
        clinic, lab = doctors.clinic, doctors.lab
        sealed = clinic.encrypt(b"either", attrs=SECRET, splits=[[lab, clinic]])
        keys = SealedFile.open(sealed).key_access

        assert {key.sid for key in keys} == {None}
        assert opened(lab, sealed) == opened(clinic, sealed) == b"either"
        with watched(clinic) as asked:
            assert opened(clinic, sealed, lab) == b"either"
        assert asked == [clinic.session.url]

    def test_a_server_that_is_down_is_passed_over(self, doctors: Three):
        """Even the asker's own, and even before it said what files name it by."""
        clinic, lab = doctors.clinic, doctors.lab
        sealed = clinic.encrypt(b"either", attrs=SECRET, splits=[[clinic, lab]])
        for session in (clinic.session, lab.session):
            session._configurations.clear()  # noqa: SLF001 as if just started

        with watched(clinic, down(clinic)) as asked:
            assert opened(clinic, sealed, lab) == b"either"
        assert asked == [lab.session.url]

    def test_a_refusal_is_not_the_last_word(self, servers, doctors: Three):
        """Who may open at one of them may open."""
        sealed = doctors.clinic.encrypt(
            b"either", attrs=SECRET, splits=[[doctors.clinic, doctors.lab]]
        )

        assert opened(servers["clinic"].client("accountant"), sealed, doctors.lab) == b"either"
        with pytest.raises(DeniedError):
            opened(
                servers["clinic"].client("accountant"), sealed, servers["lab"].client("accountant")
            )

    def test_a_wrong_share_of_one_is_made_good_by_another(self, doctors: Three):
        """It is noticed before it is joined."""
        clinic, lab = doctors.clinic, doctors.lab
        sealed = clinic.encrypt(b"either", attrs=SECRET, splits=[[clinic, lab]])

        with watched(clinic, wrong_share(clinic)) as asked:
            assert opened(clinic, sealed, lab) == b"either"
        assert asked == [clinic.session.url, lab.session.url]

    def test_all_of_and_any_of_together(self, doctors: Three):
        """The clinic, and the laboratory or its backup."""
        splits = [doctors.clinic, [doctors.lab, doctors.backup]]
        sealed = doctors.clinic.encrypt(b"both", attrs=SECRET, splits=splits)
        keys = SealedFile.open(sealed).key_access

        assert keys[1].sid == keys[2].sid != keys[0].sid
        for peers in ([doctors.lab], [doctors.backup], [doctors.backup, doctors.lab]):
            assert opened(doctors.clinic, sealed, *peers) == b"both"
        with pytest.raises(
            KasNotAllowedError, match=r"'https://kas\.lab\.example' or 'https://kas\.backup"
        ):
            opened(doctors.clinic, sealed)
        with pytest.raises(KasNotAllowedError, match=r"'https://kas\.clinic\.example'"):
            opened(doctors.lab, sealed, doctors.backup)

    def test_where_trying_again_helps_the_error_says_so(self, servers, doctors: Three):
        """Of a refusing and a silent alternative the silent one is told, and a refusal that no
        alternative can make good comes first.
        """
        clinic, lab, backup = doctors.clinic, doctors.lab, doctors.backup
        accountant = servers["lab"].client("accountant")
        either = clinic.encrypt(b"x", attrs=SECRET, splits=[[lab, backup]])
        both = clinic.encrypt(b"x", attrs=SECRET, splits=[lab, backup])
        together = clinic.with_peers(accountant, backup)
        backup.run(backup.session.configuration())

        with watched(clinic, down(backup)):
            with pytest.raises(UnavailableError):
                together.decrypt(either)
            with pytest.raises(DeniedError):
                together.decrypt(both)


class TestWhoAsks:
    """Peers act as themselves, and only where they were asked for."""

    def test_a_token_of_somebody_else_brings_no_peers(self, doctors: Three):
        """The peers' own rights do not serve the user of an application."""
        sealed = doctors.clinic.encrypt(b"x", attrs=SECRET, splits=[doctors.lab])
        together = doctors.clinic.with_peers(doctors.lab)

        assert together.decrypt(sealed) == b"x"
        with pytest.raises(KasNotAllowedError):
            together.with_token("whatever").decrypt(sealed)

    def test_a_peer_shows_its_own_token_at_its_own_server(self, doctors: Three):
        """A token goes to the server that it was brought for, and to no other."""
        clinic, lab = doctors.clinic, doctors.lab
        sealed = clinic.encrypt(b"x", attrs=SECRET, splits=[clinic, lab])
        shown: list[tuple[str, str]] = []

        def note(call: Call, reply: Reply) -> Reply:
            shown.append((call.url, call.headers.get("Authorization", "")))
            return reply

        with watched(clinic, note), pytest.raises(NotAuthenticatedError) as caught:
            opened(clinic, sealed, lab.with_token(lambda: "of-the-lab"))
        assert caught.value.server == lab.session.url
        with_it = {url for url, token in shown if token == "Bearer of-the-lab"}
        assert with_it == {f"{lab.session.url}/kas.AccessService/Rewrap"}

    async def test_asynchronously(self, servers, doctors: Three):
        """The same with await."""
        profiles = (servers[name].data / "profiles" / "doctor.toml" for name in NAMES)
        async with (
            AsyncClient(profile=next(profiles)) as clinic,
            AsyncClient(profile=next(profiles)) as lab,
        ):
            sealed = await clinic.encrypt(b"both", attrs=SECRET, splits=[clinic, [lab]])
            back = await clinic.with_peers(lab).decrypt(sealed)

        assert back == opened(doctors.clinic, sealed, doctors.lab) == b"both"


class TestSealing:
    """What is refused before anything is sealed."""

    def test_what_cannot_be_split_is_refused(self, doctors: Three):
        """A split without a server, a server in two places, an online seal."""
        clinic, lab = doctors.clinic, doctors.lab

        for splits in ([], [[]], [clinic, []], [clinic, clinic], [[lab, clinic], [lab]]):
            with pytest.raises(ConfigError):
                clinic.encrypt(b"x", attrs=SECRET, splits=splits)
        with pytest.raises(ConfigError, match="online"):
            clinic.encrypt(b"x", attrs=SECRET, splits=[clinic, lab], online=True)

    def test_servers_of_one_address_are_refused(self, servers, doctors: Three):
        """A file could not tell them apart, whoever asks there."""
        twin = servers["clinic"].client("accountant")

        with pytest.raises(ConfigError, match=r"kas\.clinic\.example stands in two places"):
            doctors.clinic.encrypt(b"x", attrs=SECRET, splits=[doctors.clinic, twin])

    def test_a_server_that_gives_no_key_is_named(self, doctors: Three):
        """Nothing is sealed for the others alone."""
        with watched(doctors.clinic, down(doctors.lab)), pytest.raises(UnavailableError) as caught:
            doctors.clinic.encrypt(
                b"x", attrs=SECRET, splits=[doctors.clinic, doctors.lab], dataset="fresh"
            )
        assert caught.value.server == doctors.lab.session.url


class TestCommandLine:
    """`--split`, `--peer`, and `peers` in a profile."""

    @pytest.fixture
    def shell(self, servers, tmp_path: Path) -> Shell:
        """A shell beside the clinic, with a profile of the laboratory."""
        lab = (servers["lab"].data / "profiles" / "doctor.toml").read_text()
        (tmp_path / "config" / "envelock").mkdir(parents=True)
        (tmp_path / "config" / "envelock" / "lab.toml").write_text(lab)
        (tmp_path / "q3.pdf").write_bytes(b"both")
        return Shell(tmp_path, {"ENVELOCK_DATA": str(servers["clinic"].data)})

    def test_seals_for_two_and_opens_with_both(self, shell: Shell, servers):
        """By names of profiles, or by their files; the receipts of both ledgers are kept."""
        backup = servers["backup"].data / "profiles" / "doctor.toml"
        sealed = shell(
            "encrypt q3.pdf --as doctor --attr clearance=secret --split doctor --split",
            f"lab,{backup}",
        )
        shown = shell("inspect q3.pdf.tdf --json")
        alone = shell("decrypt q3.pdf.tdf --as doctor -o -")
        both = shell("decrypt q3.pdf.tdf --as doctor --peer lab -o - --receipt r")

        assert (sealed.code, alone.code) == (0, 4)
        splits = [key["split"] for key in shown.value["keys"]]
        assert splits[1] == splits[2] != splits[0]
        assert "https://kas.lab.example" in alone.err
        assert "--peer PROFILE" in alone.err
        assert both.raw == b"both"
        assert both.err == "receipt of another ledger: r.2\n"
        for name, key in (("r", "clinic"), ("r.2", "lab")):
            line = f"ledger verify {name} --ledger-key {servers[key].ledger_key}"
            assert shell(line).code == 0

    def test_a_profile_names_its_peers(self, shell: Shell, servers, tmp_path: Path):
        """Then nothing has to be said."""
        clinic = (servers["clinic"].data / "profiles" / "doctor.toml").read_text()
        folder = tmp_path / "config" / "envelock"
        (folder / "anna.toml").write_text(f'{clinic}peers = ["lab"]\n')
        (folder / "odd.toml").write_text(f'{clinic}peers = ["nobody"]\n')
        shell("encrypt q3.pdf --as anna --attr clearance=secret --split anna --split lab")
        done = shell("decrypt q3.pdf.tdf --as anna -o -")
        odd = shell("decrypt q3.pdf.tdf --as odd -o -")

        assert done.raw == b"both"
        assert (odd.code, "peer of odd: no profile 'nobody'" in odd.err) == (2, True)

    def test_a_refusal_says_whose(self, shell: Shell, servers):
        """And whom to ask: the reason is in another ledger."""
        lab = servers["lab"].data / "profiles" / "accountant.toml"
        shell("encrypt q3.pdf --as doctor --attr clearance=secret --split doctor --split lab")
        done = shell("decrypt q3.pdf.tdf --as doctor -o - --peer", lab)

        assert done.code == 3
        assert f"refused by {servers['lab'].url}" in done.err
        assert "to its operator; the reason is only in the ledger" in done.err


def repacked(sealed: bytes, keys: tuple[KeyAccess, ...]) -> bytes:
    """The same payload under a manifest with other key access objects."""
    found = SealedFile.open(sealed)
    payload = sealed[found.payload_offset :][: found.manifest.payload_size]
    return pack(payload, write_manifest(replace(found.manifest, key_access=keys)))


def wrong_share(of: Client):
    """A change by which the server of *of* answers with a share of its own choosing."""

    def change(call: Call, reply: Reply) -> Reply:
        if not call.url.startswith(of.session.url) or not call.url.endswith("/Rewrap"):
            return reply
        token = json.loads(call.body)["signedRequestToken"]
        asked = read_rewrap(read_request_token(token, None, int(time.time())).body)
        client_key = load_pem_public_key(asked.clientPublicKey.encode())
        session = ec.generate_private_key(ec.SECP256R1())
        answer = json.loads(reply.body)
        answer["sessionPublicKey"] = public_pem(session.public_key())
        for result in answer["responses"][0]["results"]:
            sealed = seal_share(agree(session, client_key), b"w" * 32, bytes(12))
            result["kasWrappedKey"] = b64(sealed)
        return replace(reply, body=json.dumps(answer).encode())

    return change

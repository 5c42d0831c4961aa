"""Another policy for a sealed file: what is rewritten, what stays, and what a cut leaves behind."""

import io
import json
import resource
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from envelock import (
    AsyncClient,
    Client,
    ConfigError,
    DeniedError,
    EnvelockError,
    FormatError,
    KasNotAllowedError,
    ReceiptError,
    UnavailableError,
)
from envelock.exchange import Call, Reply
from envelock.reader import SealedFile
from envelock.testing import Server, server
from envelock_ledger.note import VerifierKey
from envelock_ledger.proof import Receipt

SECRET, INTERNAL = "clearance=secret", "clearance=internal"
Change = Callable[[Reply], Reply]


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    """Two deployments that know nothing of each other."""
    with (
        server(kas_url="https://kas.clinic.example") as clinic,
        server(kas_url="https://kas.lab.example") as lab,
    ):
        yield clinic, lab


@pytest.fixture
def doctor(servers) -> Client:
    """Opens what asks for secret, and may not rebind."""
    return servers[0].client("doctor")


@pytest.fixture
def archivist(servers) -> Client:
    """May rebind."""
    return servers[0].client("archivist")


@pytest.fixture
def nurse(servers) -> Client:
    """Opens what asks for internal."""
    return servers[0].client("nurse")


@contextmanager
def answered(client: Client, change: Change = lambda reply: reply) -> Iterator[list[str]]:
    """Where *client* asks to rebind, while *change* alters what it is told."""
    send, asked = client._transport.send, []  # noqa: SLF001 to see what is sent

    def sending(call: Call) -> Reply:
        reply = send(call)
        if not call.url.endswith("/v1/rebind"):
            return reply
        asked.append(call.url.removesuffix("/v1/rebind"))
        return change(reply)

    client._transport.send = sending  # noqa: SLF001 restored below
    try:
        yield asked
    finally:
        client._transport.send = send  # noqa: SLF001 as before


def cut(_reply: Reply) -> Reply:
    """The server has done it, and the answer is lost."""
    return Reply(0, {}, b"cut")


def altered(**members: object) -> Change:
    """The answer, with members that the server did not give."""
    return lambda reply: replace(reply, body=json.dumps(json.loads(reply.body) | members).encode())


def payload(sealed: bytes) -> bytes:
    """The payload of a sealed file."""
    with SealedFile.open(sealed) as file:
        start = file.payload_offset
        return sealed[start : start + file.manifest.payload_size]


class TestRewritten:
    """The manifest changes, and nothing else."""

    @pytest.mark.parametrize("online", [True, False])
    def test_a_file_opens_for_others_in_its_place(
        self, doctor, archivist, nurse, tmp_path: Path, *, online: bool
    ):
        """Whole, with its mode, through a link; the content was never opened for it."""
        plain, file, link = bytes(range(256)) * 20_000, tmp_path / "a.tdf", tmp_path / "link"
        doctor.encrypt(plain, file, attrs=SECRET, online=online)
        file.chmod(0o640)
        link.symlink_to(file)
        with pytest.raises(DeniedError):
            nurse.decrypt(file)
        done = archivist.rebind(link, attrs=INTERNAL)

        assert nurse.decrypt(file) == plain
        assert done.attrs == ("https://clinic.example/attr/clearance/value/internal",)
        assert done.former == ("https://clinic.example/attr/clearance/value/secret",)
        assert done.online is online
        assert stat.S_IMODE(file.stat().st_mode) == 0o640
        assert link.is_symlink()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tdf", "link"]

    def test_payload_segments_and_root_stay(self, doctor, archivist):
        """They are under the data key, which stays; so does the policy's uuid."""
        former = doctor.encrypt(b"negative" * 1000, attrs=SECRET, online=True)
        new = archivist.rebind(former, attrs=INTERNAL)
        with SealedFile.open(former) as before, SealedFile.open(new) as after:
            assert after.manifest.root == before.manifest.root
            assert after.manifest.segments == before.manifest.segments
            assert after.policy.uuid == before.policy.uuid
            assert after.key_access[0].wrappedKey != before.key_access[0].wrappedKey

        assert payload(new) == payload(former)

    def test_the_receipt_is_of_this_very_record(self, servers, doctor, archivist, tmp_path: Path):
        """Verified under the pinned key before the file changes, and handed on."""
        file = tmp_path / "a.tdf"
        doctor.encrypt(b"x", file, attrs=SECRET)
        done = archivist.rebind(file, attrs=INTERNAL)
        key = VerifierKey.parse(servers[0].ledger_key)

        assert Receipt.parse(done.receipt or "").verify(key).fields["typ"] == "rebind"

    async def test_asynchronously(self, servers, doctor, nurse, tmp_path: Path):
        """The same with await, for paths and for bytes."""
        file = tmp_path / "a.tdf"
        doctor.encrypt(b"x", file, attrs=SECRET)
        profile = servers[0].data / "profiles" / "archivist.toml"
        async with AsyncClient(profile=profile) as client:
            sealed = await client.rebind(file.read_bytes(), attrs=INTERNAL)
            done = await client.rebind(file, attrs=INTERNAL)
            with pytest.raises(ConfigError):
                await client.rebind(file, attrs=INTERNAL)

        assert done.receipt is not None
        assert nurse.decrypt(file) == nurse.decrypt(sealed) == b"x"

    def test_made_online_former_copies_are_shut(self, doctor, archivist):
        """A backup does not bring the former policy back."""
        former = doctor.encrypt(b"x", attrs=SECRET, online=True)
        archivist.rebind(former, attrs=INTERNAL)

        with pytest.raises(DeniedError):
            doctor.decrypt(former)

    def test_made_offline_former_copies_open_as_before(self, doctor, archivist):
        """What this cannot do, and the command and the documents say so."""
        former = doctor.encrypt(b"x", attrs=SECRET)
        archivist.rebind(former, attrs=INTERNAL)

        assert doctor.decrypt(former) == b"x"


class TestCutShort:
    """Whatever happens in between, the same again completes it."""

    def test_a_lost_answer_is_asked_for_again(self, doctor, archivist, nurse):
        """The client does so by itself, with the same request."""
        former = doctor.encrypt(b"x", attrs=SECRET, online=True)
        lost = [cut, cut]
        with answered(archivist, lambda reply: lost.pop()(reply) if lost else reply) as asked:
            new = archivist.rebind(former, attrs=INTERNAL)

        assert len(asked) == 3
        assert nurse.decrypt(new) == b"x"

    @pytest.mark.parametrize("online", [True, False])
    def test_a_file_that_was_not_rewritten_is_not_lost(
        self, servers, doctor, nurse, tmp_path: Path, *, online: bool
    ):
        """On record, but the client never heard: the former file, and anybody who may, do it."""
        file = tmp_path / "a.tdf"
        doctor.encrypt(b"x", file, attrs=SECRET, online=online)
        before = file.read_bytes()
        first = servers[0].client("archivist")
        with answered(first, cut), pytest.raises(UnavailableError):
            first.rebind(file, attrs=[INTERNAL, "clearance=public"])
        unchanged = file.read_bytes()
        servers[0].client("archivist").rebind(file, attrs=["clearance=public", INTERNAL])

        assert unchanged == before
        assert nurse.decrypt(file) == b"x"

    def test_another_wish_does_not_complete_it(self, doctor, archivist, tmp_path: Path):
        """The record names one policy; the refusal says that there is another one now."""
        file = tmp_path / "a.tdf"
        doctor.encrypt(b"x", file, attrs=SECRET, online=True)
        with answered(archivist, cut), pytest.raises(UnavailableError):
            archivist.rebind(file, attrs=INTERNAL)

        with pytest.raises(DeniedError, match="another policy now"):
            archivist.rebind(file, attrs="clearance=public")
        assert archivist.rebind(file, attrs=INTERNAL).online

    def test_a_file_that_cannot_be_written_says_what_to_do(
        self, doctor, archivist, nurse, tmp_path: Path
    ):
        """The servers agreed and the disk did not: the former file does it again."""
        file, kept = tmp_path / "a.tdf", tmp_path / "kept.tdf"
        doctor.encrypt(b"x", file, attrs=SECRET, online=True)
        kept.write_bytes(file.read_bytes())

        def taken(reply: Reply) -> Reply:
            file.unlink()
            file.mkdir()
            return reply

        with answered(archivist, taken), pytest.raises(EnvelockError) as caught:
            archivist.rebind(file, attrs=INTERNAL)
        archivist.rebind(kept, attrs=INTERNAL)

        assert caught.value.code == "not_rewritten"
        assert "again" in (caught.value.hint or "")
        assert nurse.decrypt(kept) == b"x"
        assert not list(tmp_path.glob(".envelock*"))

    def test_a_full_disk_is_noticed_before(self, doctor, archivist, tmp_path: Path):
        """Nothing is asked of a server until the payload is beside the former file."""
        file = tmp_path / "a.tdf"
        doctor.encrypt(bytes(3_000_000), file, attrs=SECRET, online=True)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
        try:
            with answered(archivist) as asked, pytest.raises(OSError, match="too large"):
                archivist.rebind(file, attrs=INTERNAL)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

        assert asked == []
        assert doctor.decrypt(file) == bytes(3_000_000)


class TestRefused:
    """What is not done, and leaves the file as it was."""

    def test_whom_the_policy_does_not_permit(self, doctor, tmp_path: Path):
        """Opening is one right, rebinding another."""
        file = tmp_path / "a.tdf"
        doctor.encrypt(b"x", file, attrs=SECRET)
        before = file.read_bytes()

        with pytest.raises(DeniedError):
            doctor.rebind(file, attrs=INTERNAL)
        assert file.read_bytes() == before

    def test_what_it_asks_already(self, doctor, archivist):
        """Nobody is asked."""
        sealed = doctor.encrypt(b"x", attrs=SECRET)

        with answered(archivist) as asked, pytest.raises(ConfigError) as caught:
            archivist.rebind(sealed, attrs=SECRET)
        assert caught.value.code == "same_policy"
        assert asked == []

    def test_what_is_no_file_to_rewrite(self, archivist, tmp_path: Path):
        """Text, streams, folders, what is not there, and what is not sealed."""
        (tmp_path / "plain").write_bytes(b"hello")

        with pytest.raises(TypeError):
            archivist.rebind("a.tdf", attrs=INTERNAL)
        with pytest.raises(TypeError):
            archivist.rebind(io.BytesIO(b"x"), attrs=INTERNAL)
        for path in (tmp_path, tmp_path / "nowhere"):
            with pytest.raises(ConfigError):
                archivist.rebind(path, attrs=INTERNAL)
        with pytest.raises(FormatError):
            archivist.rebind(tmp_path / "plain", attrs=INTERNAL)

    @pytest.mark.parametrize(
        ("members", "error"),
        [
            ({"id": "ff" * 16}, UnavailableError),
            ({"keyAccess": []}, UnavailableError),
            ({"receipt": None}, ReceiptError),
            ({"receipt": "c2sp.org/tlog-proof@v1\n"}, ReceiptError),
        ],
    )
    def test_an_answer_that_is_not_of_this_request(
        self, doctor, archivist, tmp_path: Path, members: dict, error: type[Exception]
    ):
        """Another object, no key, no receipt, no proof: the file stays as it was."""
        file = tmp_path / "a.tdf"
        doctor.encrypt(b"x", file, attrs=SECRET, online=True)
        before = file.read_bytes()

        with answered(archivist, altered(**members)), pytest.raises(error):
            archivist.rebind(file, attrs=INTERNAL)
        assert file.read_bytes() == before

    def test_keys_of_another_rebinding(self, doctor, archivist):
        """Genuine wraps and a genuine receipt of another file do not get into this one."""
        bodies: list[bytes] = []
        first = doctor.encrypt(b"x", attrs=SECRET, online=True)
        second = doctor.encrypt(b"y", attrs=SECRET, online=True)
        with answered(archivist, lambda reply: bodies.append(reply.body) or reply):
            archivist.rebind(first, attrs=INTERNAL)

        with (
            answered(archivist, lambda reply: replace(reply, body=bodies[0])),
            pytest.raises(UnavailableError, match="another object"),
        ):
            archivist.rebind(second, attrs=INTERNAL)

    def test_a_receipt_of_another_rebinding(self, doctor, archivist):
        """The keys are right and the record is another's: it proves nothing of this request."""
        receipts: list[str] = []
        first = doctor.encrypt(b"x", attrs=SECRET, online=True)
        second = doctor.encrypt(b"y", attrs=SECRET, online=True)
        keep = answered(
            archivist, lambda reply: receipts.append(json.loads(reply.body)["receipt"]) or reply
        )
        with keep:
            archivist.rebind(first, attrs=INTERNAL)

        with (
            answered(archivist, altered(receipt=receipts[0])),
            pytest.raises(ReceiptError),
        ):
            archivist.rebind(second, attrs=INTERNAL)

    def test_a_receipt_that_names_another_wrap(self, doctor, archivist):
        """The same wish twice is the same request, but each offline wrap has its own record."""
        bodies: list[bytes] = []
        former = doctor.encrypt(b"x", attrs=SECRET)
        with answered(archivist, lambda reply: bodies.append(reply.body) or reply):
            archivist.rebind(former, attrs=INTERNAL)
        first = {name: json.loads(bodies[0])[name] for name in ("id", "keyAccess")}

        with answered(archivist, altered(**first)), pytest.raises(ReceiptError):
            archivist.rebind(former, attrs=INTERNAL)


class TestSplit:
    """A key that is split over several servers: all of them, or nothing."""

    def test_every_server_puts_it_on_record(self, servers, doctor, tmp_path: Path):
        """Each for its own share, with a receipt of its own ledger."""
        clinic, lab = servers
        file = tmp_path / "a.tdf"
        doctor.encrypt(b"x", file, attrs=SECRET, splits=[doctor, lab.client("doctor")])
        office = clinic.client("archivist").with_peers(lab.client("archivist"))
        done = office.rebind(file, attrs=INTERNAL)
        nurses = clinic.client("nurse").with_peers(lab.client("nurse"))

        assert nurses.decrypt(file) == b"x"
        for text, one in zip(done.receipts, servers, strict=True):
            fields = Receipt.parse(text).verify(VerifierKey.parse(one.ledger_key)).fields
            assert fields["typ"] == "rebind"

    def test_alternatives_must_all_agree(self, servers, doctor, archivist):
        """One that was left out would have a share under a policy that the file no longer has."""
        lab = servers[1]
        sealed = doctor.encrypt(b"x", attrs=SECRET, splits=[[doctor, lab.client("doctor")]])

        with answered(archivist) as asked, pytest.raises(KasNotAllowedError, match=r"kas\.lab"):
            archivist.rebind(sealed, attrs=INTERNAL)
        assert asked == []

    def test_a_server_that_refuses_is_named_and_the_file_stays(
        self, servers, doctor, tmp_path: Path
    ):
        """What the other has on record does no harm: the former file opens as before."""
        clinic, lab = servers
        file = tmp_path / "a.tdf"
        doctor.encrypt(b"x", file, attrs=SECRET, splits=[doctor, lab.client("doctor")])
        mixed = clinic.client("archivist").with_peers(lab.client("doctor"))

        with pytest.raises(DeniedError) as caught:
            mixed.rebind(file, attrs=INTERNAL)
        assert caught.value.server == lab.client("doctor").session.url
        assert doctor.with_peers(lab.client("doctor")).decrypt(file) == b"x"

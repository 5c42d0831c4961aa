"""Every file of the kit is refused, with its error, before the first byte that is not verified."""

import json
import re
import subprocess
import sys
import uuid
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from kas.world import SealedObject, running_world
from negative import kit
from negative.kit import DEK, NOT_FILES, OTHER_DEK, PLAINTEXT, Base, Kit
from sdk.hostile import as_json, kas

import envelock
from envelock import Client, Demands, DeniedError, TamperedError
from envelock.doctor import examine
from envelock.reader import SealedFile
from envelock.testing import server
from envelock_formats import jose
from envelock_formats.errors import FormatError
from envelock_formats.framing import b64, from_b64
from envelock_formats.tdf.container import read_container
from envelock_formats.tdf.keyaccess import bind_policy
from envelock_formats.tdf.manifest import parse_manifest
from envelock_formats.tdf.policy import write_policy
from envelock_formats.wrap import UnwrapError, agree, ec_from_pem, public_pem, seal_share, unwrap_ec
from envelock_service.problem import Problem

PRIVATE = ec.generate_private_key(ec.SECP256R1())
FAULTS = {fault.name: fault for fault in Kit(Base("http://h", "e1", PRIVATE.public_key())).faults()}
OF_READERS = [name for name, fault in FAULTS.items() if fault.seen_by == "reader"]
REWRAP = "/kas.AccessService/Rewrap"


def release(body):
    """What a KAS answers that looks at nothing, and opens every wrap that it can open."""
    token = json.loads(body)["signedRequestToken"]
    jws = jose.read(token, typ=frozenset({None, "JWT"}), max_bytes=1 << 22)
    asked = json.loads(jws.claims["requestBody"])
    session = ec.generate_private_key(ec.SECP256R1())
    cipher = agree(session, ec_from_pem(asked["clientPublicKey"]))
    results = []
    for entry in asked["requests"][0]["keyAccessObjects"]:
        key = entry["keyAccessObject"]
        result = {"keyAccessObjectId": entry["keyAccessObjectId"], "status": "fail"}
        try:
            ephemeral = ec_from_pem(key["ephemeralPublicKey"])
            share = unwrap_ec(from_b64(key["wrappedKey"]), ephemeral, PRIVATE)
        except (UnwrapError, FormatError):
            results.append(result)
            continue
        sealed = b64(seal_share(cipher, share, bytes(12)))
        results.append(result | {"status": "permit", "kasWrappedKey": sealed})
    return {"responses": [{"policyId": "policy", "results": results}],
            "sessionPublicKey": public_pem(session.public_key())}  # fmt: skip


@pytest.fixture(scope="module")
def careless():
    """A KAS that permits everything, and a kit whose files name it."""
    with kas() as server:

        def answer(request):
            as_json(release(server.asked[-1].body))(request)

        server.answers[REWRAP] = answer
        made = Kit(Base(server.url, "e1", PRIVATE.public_key()))
        with Client(url=server.url, token="a.b.c") as client:
            yield server, client, made, {fault.name: fault for fault in made.faults()}


def test_the_good_file_opens(careless):
    """So that each file is refused for its one fault."""
    _, client, made, _ = careless

    with client.open(made.good, demands=Demands([kit.REQUIRED])) as reader:
        assert reader.read() == PLAINTEXT
    assert examine(made.good).findings == ()


@pytest.mark.parametrize("name", OF_READERS)
def test_is_refused_before_the_first_byte(careless, tmp_path: Path, name):
    """With its class and words; no path appears, and no KAS is asked but where it has to be."""
    server, client, _, faults = careless
    fault = faults[name]
    error = getattr(envelock, fault.error)
    server.asked.clear()

    with pytest.raises(error, match=fault.words) as caught:
        client.decrypt(fault.data, tmp_path / "out", demands=Demands(fault.required))

    assert type(caught.value) is error
    assert caught.value.exit_code == 4
    assert any(asked.path == REWRAP for asked in server.asked) is fault.asked
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in OF_READERS if FAULTS[name].asked])
def test_a_stream_gets_nothing_but_verified_segments(careless, name):
    """A pipe has no name that could appear late: it gets what is good before the fault."""
    _, client, _, faults = careless
    fault = faults[name]
    given = bytearray()

    def stream():
        with client.open(fault.data, demands=Demands(fault.required)) as reader:
            while piece := reader.read(kit.SEGMENT):
                given.extend(piece)

    with pytest.raises(TamperedError):
        stream()

    assert bytes(given) == PLAINTEXT[: fault.delivered]


@pytest.mark.parametrize("name", FAULTS)
def test_the_doctor_is_never_kinder_than_the_reader(name):
    """What our reader refuses without a key, the doctor calls refused, and by whom."""
    fault = FAULTS[name]
    report = examine(fault.data)

    if fault.seen_by == "reader" and not fault.asked and not fault.required:
        if fault.error != kit.FOREIGN:
            assert "envelock" in report.refused_by
            assert not report.healthy
    else:
        SealedFile.open(fault.data)


def test_there_is_a_file_for_every_weakness():
    """W1 to W24, but for those that no file can have; and each file is another."""
    seen = {fault.weakness for fault in FAULTS.values()}

    assert seen | NOT_FILES.keys() == {f"W{number}" for number in range(1, 25)}
    assert len({fault.data for fault in FAULTS.values()}) == len(FAULTS) >= 60


def test_two_keys_open_the_colliding_segment():
    """The fault is real: GCM alone accepts that segment under either key."""
    fault = FAULTS["two-keys"]
    with SealedFile.open(fault.data) as sealed:
        segment = fault.data[sealed.payload_offset :][:60]
    for key in (DEK, OTHER_DEK):
        opened = AESGCM(key).decrypt(segment[:12], segment[12:], None)
        assert len(opened) == 32
    with SealedFile.open(fault.data).unlock(OTHER_DEK) as reader:
        assert len(reader.read()) == 32


def object_in(raw: bytes) -> SealedObject:
    """What a client would ask a KAS for."""
    place = read_container(lambda start, count: raw[start : start + count], len(raw))
    manifest = parse_manifest(place.manifest)
    return SealedObject(manifest.policy, manifest.key_access, DEK)


class TestKas:
    """Faults that only the KAS can see; its refusals cost no key and are on record."""

    @pytest.fixture
    async def world(self, tmp_path: Path):
        """A KAS with a ledger, and the kit in its name."""
        async with running_world(tmp_path) as found:
            yield found

    async def test_the_good_file_is_released(self, world):
        """So that each is refused for its one fault."""
        published = await world.published()
        made = Kit(Base("http://127.0.0.1:8080", published.kid, ec_from_pem(published.pem)))

        opened = await world.request(world.person("doctor"), object_in(made.good)).send()

        assert opened.shares == [DEK]

    @pytest.mark.parametrize("name", [
        *(name for name, fault in FAULTS.items() if fault.seen_by == "kas"),
        "binding-zero", "policy-exchanged", "wrap-of-another-file",
    ])  # fmt: skip
    async def test_is_refused_on_record(self, world, name):
        """Wrap, key and binding: nothing is released, and the refusal is in the ledger."""
        published = await world.published()
        made = Kit(Base("http://127.0.0.1:8080", published.kid, ec_from_pem(published.pem)))
        fault = {fault.name: fault for fault in made.faults()}[name]
        sealed = object_in(fault.data)

        try:
            opened = await world.request(world.person("doctor"), sealed).send()
        except Problem:
            pass  # the request as a whole
        else:
            assert set(opened.statuses) == {"fail"}
            assert opened.answer.sessionPublicKey is None
        assert await world.records("release") == []
        assert len(await world.records("denied")) == 1

    async def test_a_policy_forged_by_a_former_reader_opens_no_online_wrap(self, world):
        """Whoever once had the key can bind any policy to it; the wrap holds the true one."""
        doctor = world.person("doctor")
        sealed = await world.seal_online(doctor)
        forged = write_policy(str(uuid.uuid4()), [])
        key = msgspec.structs.replace(
            sealed.keys[0], policyBinding=bind_policy(sealed.share, forged)
        )

        opened = await world.request(doctor, SealedObject(forged, (key,), sealed.share)).send()

        assert opened.statuses == ["fail"]
        assert await world.records("release") == []


def test_the_decision_point_refuses_what_it_should():
    """A policy that asks nothing, and one that names others: denied by a whole deployment."""
    with server() as running:
        client = running.client("doctor")
        published = client.run(client.session.published_key(None))
        made = Kit(Base(published.url, published.kid, ec_from_pem(published.pem)))
        denied = [fault for fault in made.faults() if fault.seen_by == "pdp"]

        assert client.decrypt(made.good, demands=Demands([kit.REQUIRED])) == PLAINTEXT
        assert len(denied) == 2
        for fault in denied:
            with pytest.raises(DeniedError):
                client.decrypt(fault.data)


def test_is_written_to_a_folder(tmp_path: Path):
    """Files, a good one beside them, the key of their wraps, and what to expect of each."""
    script = Path(__file__).with_name("kit.py")
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, check=True)

    index = json.loads((tmp_path / "index.json").read_text())
    assert len(index["faults"]) == len(FAULTS)
    assert done.stderr == b""
    for listed in index["faults"]:
        assert (tmp_path / f"{listed['name']}.tdf").is_file()
        re.compile(listed["words"])
    for name in ("good", "plaintext", "key"):
        assert (tmp_path / index[name]).stat().st_size

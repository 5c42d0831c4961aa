"""Keys of another KAS: what they open, what files may call them, and what is refused."""

import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest
from contracts.conftest import Opener, open_custody  # noqa: F401 a fixture
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from kas.served import Served, running_served
from kas.test_release import replaced
from kas.world import SECRET, SealedObject, World, another_worker, path, running_world

from envelock_formats.envelope import KEM_TYPES
from envelock_formats.errors import FormatError, UnsupportedAlgorithmError
from envelock_formats.fqn import AttributeValue
from envelock_formats.framing import b64
from envelock_formats.kem import KemPrivateKey
from envelock_formats.keyid import KeyIdError
from envelock_formats.privatekey import PrivateKey, algorithm_of_private, pkcs8_of, read_private_key
from envelock_formats.publickey import wrap_share
from envelock_formats.tdf.keyaccess import KeyAccess, bind_policy
from envelock_formats.tdf.policy import write_policy
from envelock_formats.wrap import curve_of, public_pem
from envelock_kas.errors import KeyExistsError, TransitionError
from envelock_kas.keys.foreign import MAX_LEGACY, ForeignKey
from envelock_kas.keys.lifecycle import Actor
from envelock_kas.records import Origin
from envelock_service.problem import Problem

OPERATOR = Actor(Origin("r-operator"))
MOVED = path("clinic:moved")


def made(algorithm: str) -> PrivateKey:
    """A key that another KAS made."""
    if algorithm in KEM_TYPES:
        return KemPrivateKey.generate(algorithm, os.urandom)
    if algorithm.startswith("rsa:"):
        return rsa.generate_private_key(65537, int(algorithm[4:]))
    return ec.generate_private_key(curve_of(algorithm))


def sealed_to(
    key: PrivateKey, kid: str | None, attributes: Sequence[AttributeValue] = (SECRET,)
) -> SealedObject:
    """An object that another KAS's clients sealed."""
    policy, share = write_policy(str(uuid.uuid4()), attributes), os.urandom(32)
    made = wrap_share(share, key.public_key(), iv=os.urandom(12))
    access = KeyAccess(
        type=made.kind,
        url="http://old.example/kas",
        wrappedKey=b64(made.wrapped),
        policyBinding=bind_policy(share, policy),
        kid=kid,
        ephemeralPublicKey=made.ephemeral_pem,
    )
    return SealedObject(policy, (access,), share)


async def imported(world: World, key: PrivateKey, kid: str, at: str = "clinic:moved", **more: bool):
    """Take a key over."""
    foreign = ForeignKey(kid, key, **more)
    return await world.worker.lifecycle.take_over(path(at), foreign, OPERATOR)


@pytest.fixture(scope="module")
def old() -> ec.EllipticCurvePrivateKey:
    """The key of the KAS that was."""
    return ec.generate_private_key(ec.SECP256R1())


class TestOpening:
    """What was sealed elsewhere opens here, by our policy and on our record."""

    async def test_every_algorithm_opens_in_every_custody(
        self,
        open_custody: Opener,  # noqa: F811 the fixture
        tmp_path: Path,
    ):
        """Each kind of key is taken over, and opens what names it as its KAS did."""
        async with (
            open_custody() as custody,
            running_world(tmp_path / "kas", custody=custody) as world,
        ):
            keys = {name: made(name) for name in custody.algorithms[1:]}
            for name, key in keys.items():
                await imported(world, key, f"old/{name}")
            objects = [sealed_to(key, f"old/{name}") for name, key in keys.items()]
            opened = await world.request(world.person("doctor"), *objects).send()
            [record] = await world.records("release")

        assert opened.shares == [item.share for item in objects]
        assert [row["kid"] for row in record["objs"]] == [
            f"clinic:moved:v{n}" for n in range(1, 1 + len(keys))
        ]

    async def test_the_import_is_on_record_with_the_foreign_name(self, world: World, old):
        """Path, state, foreign key id and public key; never the private one."""
        changed = await imported(world, old, "r1", legacy=True)

        record = (await world.records("key.lifecycle"))[-1]
        [version] = [key for key in record["keys"] if key["path"] == "clinic:moved"]
        assert record["op"] == "import"
        assert (version["kid"], version["legacy"], version["state"]) == ("r1", True, "deprecated")
        assert changed.versions[-1].custody == "local"

    async def test_an_imported_key_seals_nothing_new(self, world: World, old):
        """It opens only; its path is rotated for keys that seal."""
        await imported(world, old, "r1")
        publisher = world.worker.surface.publisher
        with pytest.raises(TransitionError, match="nothing new is sealed"):
            await publisher.publish(MOVED, "", OPERATOR)
        await world.worker.lifecycle.rotate(MOVED, OPERATOR)
        published = await publisher.publish(MOVED, "", OPERATOR)

        assert (published.kid, published.algorithm) == ("clinic:moved:v2", "ec:secp256r1")

    async def test_an_active_import_seals_too(self, world: World, old):
        """What is sealed under it names our key id, and opens under either name."""
        await imported(world, old, "r1", active=True)
        published = await world.worker.surface.publisher.publish(MOVED, "", OPERATOR)
        objects = [sealed_to(old, "r1"), sealed_to(old, published.kid)]
        opened = await world.request(world.person("doctor"), *objects).send()

        assert published.kid == "clinic:moved:v1"
        assert published.pem == public_pem(old.public_key())
        assert opened.shares == [item.share for item in objects]

    async def test_another_worker_reads_on_before_it_refuses(self, world: World, old):
        """A worker that has not heard of the import does so when a file names the key."""
        other = await another_worker(world)
        await imported(world, old, "r1")
        sealed = sealed_to(old, "r1")
        opened = await world.request(world.person("doctor"), sealed).send(other)

        assert opened.shares == [sealed.share]

    async def test_a_denied_caller_costs_no_operation(self, world: World, old):
        """The policy is asked before the key is touched."""
        await imported(world, old, "r1", legacy=True)
        world.pdp.reasons["accountant"] = "entitlement: clearance"
        accountant = world.person("accountant")
        objects = [sealed_to(old, "r1"), sealed_to(old, None)]
        opened = await world.request(accountant, *objects).send()

        [denied] = await world.records("denied")
        assert opened.statuses == ["fail", "fail"]
        assert [row["kid"] for row in denied["objs"]] == ["clinic:moved:v1"] * 2
        assert not world.custody.operations["agree"]


class TestUnnamed:
    """Files of before key ids."""

    @pytest.mark.parametrize("kid", [None, ""])
    async def test_a_file_that_names_no_key_is_opened_by_a_legacy_one(self, world: World, kid):
        """Each legacy key of the kind gets one attempt; the record names the one that opened."""
        keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(4)]
        for number, key in enumerate(keys):
            await imported(world, key, f"k{number}", legacy=number != 3)
        sealed = sealed_to(keys[0], kid)
        opened = await world.request(world.person("doctor"), sealed).send()

        [record] = await world.records("release")
        assert opened.shares == [sealed.share]
        assert [row["kid"] for row in record["objs"]] == ["clinic:moved:v1"]
        assert world.custody.operations["agree"] == 3

    async def test_a_key_that_is_not_legacy_is_not_tried(self, world: World, old):
        """It opens what names it, and nothing else."""
        await imported(world, old, "r1")
        await imported(world, ec.generate_private_key(ec.SECP256R1()), "r2", legacy=True)
        opened = await world.request(world.person("doctor"), sealed_to(old, None)).send()

        assert opened.statuses == ["fail"]
        assert (await world.records("denied"))[0]["objs"][0]["rsn"] == "unwrap failed"
        assert world.custody.operations["agree"] == 1

    async def test_without_a_legacy_key_the_object_is_refused(self, world: World, old):
        """A key access object that names no key means none."""
        opened = await world.request(world.person("doctor"), sealed_to(old, None)).send()

        assert opened.statuses == ["fail"]
        assert (await world.records("denied"))[0]["rsn"] == "no key is known as ''"

    async def test_a_suspended_legacy_key_is_passed_over(self, world: World, old):
        """The others are tried; when none is left, the caller hears of the key's state."""
        await imported(world, old, "r1", "clinic:one", legacy=True)
        other = ec.generate_private_key(ec.SECP256R1())
        await imported(world, other, "r2", "clinic:two", legacy=True)
        lifecycle, doctor = world.worker.lifecycle, world.person("doctor")
        await lifecycle.change(path("clinic:two"), "suspend", below=False, actor=OPERATOR)
        opens = await world.request(doctor, sealed_to(old, None)).send()
        await lifecycle.change(path("clinic:one"), "suspend", below=False, actor=OPERATOR)
        refused = await world.request(doctor, sealed_to(old, None)).send()

        assert opens.statuses == ["permit"]
        assert "kek_disabled" in refused.errors[0]

    async def test_a_key_suspended_meanwhile_opens_nothing(self, world: World, old):
        """The fence of the key that opened decides, whatever else might have been tried."""
        await imported(world, old, "r1", "clinic:one", legacy=True)
        other = ec.generate_private_key(ec.SECP256R1())
        await imported(world, other, "r2", "clinic:two", legacy=True)
        second = await another_worker(world)
        await world.worker.lifecycle.change(
            path("clinic:one"), "suspend", below=False, actor=OPERATOR
        )
        opened = await world.request(world.person("doctor"), sealed_to(old, None)).send(second)

        assert opened.statuses == ["fail"]
        assert "kek_disabled" in opened.errors[0]

    async def test_keys_of_several_tenants_are_told_apart_by_attributes(self, world: World, old):
        """Whose file it is, its namespaces say; where they say nothing, nobody's key is tried."""
        await world.announce("lab", b"\1" * 32)
        await imported(world, old, "r1", legacy=True)
        await imported(world, old, "r2", "lab:moved", legacy=True)
        doctor = world.person("doctor")
        sealed = sealed_to(old, None)
        opened = await world.request(doctor, sealed).send()
        refused = await world.request(doctor, sealed_to(old, None, ())).send()

        assert opened.shares == [sealed.share]
        assert (await world.records("release"))[0]["objs"][0]["kid"] == "clinic:moved:v1"
        assert refused.statuses == ["fail"]

    async def test_attempts_are_bounded(self, world: World, old):
        """No more legacy keys of a tenant than a request may cost attempts."""
        for number in range(MAX_LEGACY):
            await imported(world, old, f"k{number}", legacy=True)

        with pytest.raises(TransitionError, match="legacy keys"):
            await imported(world, old, "one-more", legacy=True)


class TestRefusing:
    """What is not taken over, and what a taken key does not open."""

    async def test_a_key_id_is_imported_once(self, world: World, old):
        """In the whole deployment; the second is told where the first is, and leaves nothing."""
        await imported(world, old, "r1")
        before = await world.custody.handles()
        with pytest.raises(KeyExistsError, match="as clinic:moved:v1"):
            await imported(world, made("ec:secp384r1"), "r1", "clinic:other")
        with pytest.raises(KeyExistsError, match="by another tenant"):
            await imported(world, made("ec:secp384r1"), "r1", "lab:moved")

        assert await world.custody.handles() == before

    async def test_two_imports_of_a_key_id_at_once_make_one(self, world: World, old):
        """The ledger spends the name once, whatever either worker knew."""
        other = await another_worker(world)
        await imported(world, old, "r1")
        other.projection.catch_up = world.worker.projection.catch_up  # it hears of nothing
        with pytest.raises(KeyExistsError):
            await other.lifecycle.take_over(path("lab:moved"), ForeignKey("r1", old), OPERATOR)

        assert len(await world.custody.handles()) == 1

    @pytest.mark.parametrize("kid", ["", "a b", "r\n1", "é", "x" * 101, "clinic:records:v1"])
    async def test_a_name_that_could_be_another_key_is_refused(self, old, kid: str):
        """Nothing invisible, and nothing of the form of our own key ids."""
        with pytest.raises(KeyIdError):
            ForeignKey(kid, old)

    async def test_a_path_that_seals_is_for_nothing_else(self, world: World, old):
        """An import never takes the place of the key that clients seal to."""
        await world.worker.lifecycle.create(MOVED, "offline", OPERATOR)

        with pytest.raises(TransitionError, match="a path of its own"):
            await imported(world, old, "r1")

    async def test_a_shut_path_takes_nothing(self, world: World, old):
        """Nor does what lies below it."""
        await imported(world, old, "r1")
        await world.worker.lifecycle.change(MOVED, "suspend", below=True, actor=OPERATOR)

        with pytest.raises(TransitionError, match="suspended"):
            await imported(world, old, "r2")
        with pytest.raises(TransitionError, match="suspended"):
            await imported(world, old, "r2", "clinic:moved:below")

    async def test_suspended_and_destroyed_keys_open_nothing(self, world: World, old):
        """A key that was taken over has the states of any other."""
        await imported(world, old, "r1")
        lifecycle, doctor = world.worker.lifecycle, world.person("doctor")
        sealed = sealed_to(old, "r1")
        await lifecycle.change(MOVED, "suspend", below=False, actor=OPERATOR)
        suspended = await world.request(doctor, sealed).send()
        await lifecycle.change(MOVED, "resume", below=False, actor=OPERATOR)
        resumed = await world.request(doctor, sealed).send()
        await lifecycle.change(MOVED, "destroy", below=False, actor=OPERATOR)
        world.now.ahead = 91 * 86_400
        await lifecycle.sweep(OPERATOR)
        world.now.ahead = 0
        destroyed = await world.request(doctor, sealed).send()

        assert "kek_disabled" in suspended.errors[0]
        assert resumed.shares == [sealed.share]
        assert "kek_destroyed" in destroyed.errors[0]
        assert list(await world.custody.handles()) == []

    async def test_an_unknown_key_id_is_refused(self, world: World, old):
        """On record, with the name, shortened."""
        opened = await world.request(world.person("doctor"), sealed_to(old, "r" * 300)).send()
        [denied] = await world.records("denied")

        assert opened.statuses == ["fail"]
        assert denied["rsn"].startswith("no key is known as 'rrr")
        assert len(denied["rsn"]) <= 200

    async def test_a_name_of_another_tenant_is_as_unknown_as_any(self, world: World, old):
        """Which names a tenant has taken over is not told by how they are refused."""
        await imported(world, old, "r1")
        await imported(world, old, "r2", "lab:moved")
        doctor, mine = world.person("doctor"), sealed_to(old, "r1")
        theirs = await world.request(doctor, mine, sealed_to(old, "r2")).send()
        nobodys = await world.request(doctor, mine, sealed_to(old, "r3")).send()

        assert theirs.statuses == nobodys.statuses == ["permit", "fail"]
        assert theirs.errors == nobodys.errors

    async def test_nobody_opens_with_another_tenants_name(self, world: World, old):
        """A file of the clinic under the laboratory's key is nobody's: its namespaces are not."""
        await world.announce("lab", b"\1" * 32)
        await imported(world, old, "r1", "lab:moved")
        with pytest.raises(Problem) as refused:
            await world.request(world.person("tech", "lab"), sealed_to(old, "r1")).send()

        assert refused.value.code == "access_denied"

    async def test_a_wrap_for_another_key_fails_alike(self, world: World, old):
        """Altered wraps and those for other keys are one error."""
        await imported(world, old, "r1")
        foreign = sealed_to(ec.generate_private_key(ec.SECP256R1()), "r1")
        altered = replaced(sealed_to(old, "r1"), wrappedKey=b64(bytes(60)))
        opened = await world.request(world.person("doctor"), foreign, altered).send()

        assert opened.statuses == ["fail", "fail"]
        assert len(set(opened.errors)) == 1


class TestReading:
    """Which private keys are read."""

    @pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
    @pytest.mark.parametrize("algorithm", ["rsa:2048", "ec:secp384r1"])
    def test_reads_both_forms(self, algorithm: str, form: PrivateFormat):
        """PKCS#8 and the traditional one are the same key."""
        key = made(algorithm)
        read = read_private_key(key.private_bytes(Encoding.DER, form, NoEncryption()))

        assert public_pem(read.public_key()) == public_pem(key.public_key())

    @pytest.mark.parametrize("algorithm", KEM_TYPES)
    def test_reads_post_quantum_keys(self, algorithm: str):
        """As PKCS#8, whose algorithm says what is inside."""
        key = made(algorithm)
        read = read_private_key(pkcs8_of(key))

        assert algorithm_of_private(read) == algorithm
        assert read.public_key() == key.public_key()

    def test_refuses_a_length_that_is_kept_nowhere(self):
        """What is read is not yet taken over."""
        with pytest.raises(UnsupportedAlgorithmError):
            ForeignKey("r1", rsa.generate_private_key(65537, 3072))

    @pytest.mark.parametrize("fault", ["garbage", "curve", "kind", "locked"])
    def test_refuses_what_is_kept_nowhere(self, fault: str):
        """Other curves, lengths and kinds of keys, and keys behind a passphrase."""
        if fault == "garbage":
            der = b"\x30\x03\x02\x01\x00"
        else:
            key = {
                "curve": lambda: ec.generate_private_key(ec.SECP256K1()),
                "kind": ed25519.Ed25519PrivateKey.generate,
                "locked": lambda: made("ec:secp256r1"),
            }[fault]()
            lock = BestAvailableEncryption(b"x") if fault == "locked" else NoEncryption()
            der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, lock)

        with pytest.raises(FormatError):
            read_private_key(der)


class TestOverHttp:
    """`POST /v1/keys/PATH/import`."""

    @staticmethod
    async def sent(served: Served, body: object, at: str = "clinic:moved", **headers: str):
        """An operator's import; status and answer."""
        token = served.authority.token(served.holder.jkt, sub="operator")
        path = f"/v1/keys/{at}/import"
        proved = served.holder.headers(f"{served.origin}{path}", token)
        status, answer, _ = await served.call(
            "POST", path, json.dumps(body).encode(), token=token, headers=proved | headers
        )
        return status, json.loads(answer)

    async def test_an_operator_imports_and_the_answer_shows_no_material(self, served: Served, old):
        """The version, its foreign name, and the record; neither key nor handle."""
        body = {"kid": "r1", "private_key": b64(pkcs8_of(old)), "legacy": True}
        status, answer = await self.sent(served, body)
        again, told = await self.sent(served, body)
        [key] = [key for key in answer["keys"] if key["path"] == "clinic:moved"]

        assert (status, again) == (200, 409)
        assert (key["kid"], key["legacy"], key["state"]) == ("r1", True, "deprecated")
        assert "handle" not in json.dumps(answer)
        assert "clinic:moved:v1" in told["detail"]
        for text in (answer, told, await served.world.records()):
            assert b64(pkcs8_of(old))[20:60] not in json.dumps(text)

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"kid": "r1", "private_key": "AAAA"},
            {"kid": "r1", "private_key": "not base64"},
            {"kid": "", "private_key": "KEY"},
            {"kid": "clinic:x:v1", "private_key": "KEY"},
            {"kid": "r1", "private_key": "KEY", "state": "active"},
        ],
    )
    async def test_what_is_no_key_is_malformed(self, served: Served, old, body: dict):
        """400, and nothing is kept."""
        if body.get("private_key") == "KEY":
            body = body | {"private_key": b64(pkcs8_of(old))}
        status, _ = await self.sent(served, body)

        assert status == 400
        assert list(await served.world.custody.handles()) == []

    async def test_nobody_imports_for_another_tenant(self, served: Served, old):
        """On record, like every reach of an operator beyond its tenant."""
        body = {"kid": "r1", "private_key": b64(pkcs8_of(old))}
        status, _ = await self.sent(served, body, "lab:moved")

        assert status == 403
        [denied] = await served.world.records("denied")
        assert denied["rsn"] == "operator: key of another tenant"

    @pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "Via"])
    async def test_no_key_passes_a_proxy(self, tmp_path: Path, old, name: str):
        """Behind one, imports come from the KAS's own host."""
        body = {"kid": "r1", "private_key": b64(pkcs8_of(old))}
        settings = {"behind_proxy": True, "url": "https://kas.example"}
        async with running_served(tmp_path, **settings) as served:
            passed, told = await self.sent(served, body, **{name: "192.0.2.1"})
            local, _ = await self.sent(served, body)

        assert (passed, local) == (403, 200)
        assert "host of the KAS" in told["detail"]

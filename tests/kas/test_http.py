"""The KAS over real HTTP: who gets in, what is counted, what is recorded, what is told."""

import base64
import json
from pathlib import Path

import pytest
from aiohttp import ClientSession, UnixConnector, web
from kas.served import REWRAP, Served
from kas.world import running_world

from envelock_formats.framing import b64url
from envelock_formats.wire import receipt_of
from envelock_kas.http import PROBLEMS
from envelock_ledger.proof import Receipt
from envelock_service.problem import STATUS
from envelock_service.server import runner
from envelock_service.sockets import bind


class TestRewrap:
    """The protocol's own path."""

    async def test_releases_to_a_caller_that_proves_itself(self, served: Served):
        """200, a result for each key, a receipt in the first, the request id in its record."""
        status, body, headers = await served.rewrap()
        answer = json.loads(body)
        receipt = answer["responses"][0]["results"][0]["metadata"]["receipt"]
        record = Receipt.parse(receipt).verify(served.world.parts.ledger_key).fields

        assert status == 200
        assert record["req"] == headers["X-Request-ID"]

    async def test_a_denial_is_200_with_a_failed_result(self, served: Served):
        """As the protocol has it; the words that clients match on are there."""
        served.world.pdp.reasons["doctor"] = "entitlement: clearance"
        status, body, _ = await served.rewrap()
        result = json.loads(body)["responses"][0]["results"][0]

        assert (status, result["status"]) == (200, "fail")
        assert "desc = forbidden" in result["error"]
        assert "clearance" not in body.decode()

    async def test_a_caller_cannot_take_on_obligations_by_a_header(self, served: Served):
        """W18: that it could fulfil them is the caller's own word, so it counts for nothing."""
        served.world.pdp.obligations = ("watermark",)
        url = f"{served.origin}{REWRAP}"
        token = served.authority.token(served.holder.jkt)
        stated = json.dumps({"obligations": {"fulfillableFQNs": ["watermark"]}}).encode()
        headers = served.holder.headers(url, token)
        headers |= {
            "X-Rewrap-Additional-Context": base64.b64encode(stated).decode(),
            "X-Required-Obligations": "watermark",
        }
        status, body, _ = await served.rewrap(token=token, headers=headers)
        [record] = await served.world.records("denied")

        assert (status, json.loads(body)["responses"][0]["results"][0]["status"]) == (200, "fail")
        assert record["rsn"] == "obligation watermark"

    async def test_the_same_proof_twice_releases_once(self, served: Served):
        """The worker that saw a proof refuses it at the door."""
        url = f"{served.origin}{REWRAP}"
        token = served.authority.token(served.holder.jkt)
        headers = served.holder.headers(url, token)
        first, _, _ = await served.rewrap(token=token, headers=headers)
        second, body, _ = await served.rewrap(token=token, headers=headers)

        assert (first, second) == (200, 401)
        assert json.loads(body)["reason"] == "invalid_dpop_proof"
        assert len(await served.world.records("release")) == 1

    @pytest.mark.parametrize("headers", [{"X": "y"}, {"Authorization": "Bearer x"}])
    async def test_noise_is_counted_and_never_recorded(self, served: Served, headers):
        """Unauthenticated requests leave no record, or the ledger could be flooded."""
        before = len(await served.world.records())
        sent = {"headers": headers, "token": "x"}
        status, body, answer = await served.call("POST", REWRAP, b"{}", **sent)

        assert status == 401
        assert "WWW-Authenticate" in answer
        assert json.loads(body)["code"] == "unauthenticated"
        assert len(await served.world.records()) == before
        assert served.world.worker.counts["invalid_token"] == 1

    @pytest.mark.parametrize(
        "body", [b"", b"{}", b"[]", b"{", b'{"signedRequestToken":1}', b"\xff", b"[" * 100_000]
    )
    async def test_malformed_messages_are_400(self, served: Served, body: bytes):
        """Whatever is sent, the answer is an error of the protocol's form."""
        status, answer, _ = await served.call("POST", REWRAP, body)

        assert status == 400
        assert json.loads(answer)["code"] == "invalid_argument"
        assert [record["act"] for record in await served.world.records("denied")] == ["open"]

    @pytest.mark.parametrize("agent", ["\udcff" * 10, "x" * 5000, "a\u202eb"])
    async def test_no_header_makes_a_refusal_unrecordable(self, served: Served, agent: str):
        """Whatever the user agent says, the denial is recorded."""
        served.world.pdp.reasons["doctor"] = "entitlement: clearance"
        token = served.authority.token(served.holder.jkt)
        url = f"{served.origin}{REWRAP}"
        headers = served.holder.headers(url, token) | {"User-Agent": agent}
        status, _, _ = await served.rewrap(token=token, headers=headers)

        assert status == 200
        assert len(await served.world.records("denied")) == 1

    async def test_an_identity_in_a_header_is_ignored(self, served: Served):
        """I9: no header names a person, an address or a request."""
        url = f"{served.origin}{REWRAP}"
        token = served.authority.token(served.holder.jkt)
        forged = {
            "X-Forwarded-For": "203.0.113.9",
            "X-Request-ID": "mine",
            "X-Forwarded-Actor-Id": "somebody",
        }
        headers = served.holder.headers(url, token) | forged
        _, body, _ = await served.rewrap(token=token, headers=headers)
        text = json.loads(body)["responses"][0]["results"][0]["metadata"]["receipt"]
        receipt = Receipt.parse(text)

        assert receipt.openings["addr"][1] == "127.0.0.1"
        assert receipt.openings["sub"][1] == [served.authority.url, "doctor"]
        assert "mine" not in receipt.record.decode()

    async def test_unknown_paths_have_the_protocols_own_error(self, served: Served):
        """A stranger's method is an error that its client understands."""
        status, body, _ = await served.call("POST", "/kas.AccessService/Nothing", b"{}")

        assert (status, json.loads(body)["code"]) == (501, "unimplemented")


class TestOperators:
    """Keys over REST."""

    async def test_lists_and_changes_keys_of_the_own_tenant(self, served: Served):
        """Create, rotate, suspend and resume, each with its record."""
        path = "/v1/keys/clinic:archive:2026"
        created = await served.call("POST", path, b"{}")
        rotated = await served.call("POST", f"{path}/rotate", b"{}")
        suspended = await served.call("POST", f"{path}/suspend", b"{}")
        _, listed, _ = await served.call("GET", "/v1/keys")

        assert [answer[0] for answer in (created, rotated, suspended)] == [200, 200, 200]
        states = {key["id"]: key["state"] for key in json.loads(listed)["keys"]}
        assert states["clinic:archive:2026:v1"] == "suspended"
        assert "handle" not in listed.decode()

    async def test_makes_keys_of_the_algorithms_that_are_named(self, served: Served):
        """In their order; a rotation keeps them unless it names others."""
        path = "/v1/keys/clinic:archive:2026"
        bodies = [b'{"algorithms":["ec:secp521r1","ec:secp384r1"]}', b"{}",
                  b'{"algorithms":["ec:secp256r1"]}']  # fmt: skip
        for number, body in enumerate(bodies):
            await served.call("POST", f"{path}/rotate" if number else path, body)
        _, listed, _ = await served.call("GET", path)

        found = [key["algorithms"] for key in json.loads(listed)["keys"]]
        assert found == [["ec:secp521r1", "ec:secp384r1"]] * 2 + [["ec:secp256r1"]]

    async def test_a_key_that_is_sealed_under_online_takes_no_algorithms(self, served: Served):
        """It is symmetric, and rotating it does not make it anything else."""
        path = "/v1/keys/clinic:notes:2026"
        await served.call("POST", path, b'{"wraps":"online"}')
        status, _, _ = await served.call(
            "POST", f"{path}/rotate", b'{"algorithms":["ec:secp256r1"]}'
        )
        rotated, body, _ = await served.call("POST", f"{path}/rotate", b"{}")

        assert (status, rotated) == (400, 200)
        assert json.loads(body)["keys"][-1]["algorithms"] == ["aes:256"]

    @pytest.mark.parametrize(
        ("method", "path", "body", "status"),
        [
            ("GET", "/v1/keys/globex:records", b"", 403),
            ("POST", "/v1/keys/globex:records", b"{}", 403),
            ("POST", "/v1/keys/clinic:a_b", b"{}", 400),
            ("POST", "/v1/keys/clinic:v1", b"{}", 400),
            ("POST", "/v1/keys/clinic:x", b'{"algorithms":["rsa:1024"]}', 400),
            ("POST", "/v1/keys/clinic:x", b'{"algorithms":["aes:256"]}', 400),
            ("POST", "/v1/keys/clinic:x", b'{"algorithms":["rsa:4096","rsa:4096"]}', 400),
            ("POST", "/v1/keys/clinic:x", b'{"wraps":"online","algorithms":["rsa:4096"]}', 400),
            ("POST", "/v1/keys/clinic:x/rotate", b'{"algorithms":["ec:secp256k1"]}', 400),
            ("POST", "/v1/keys/clinic:none/rotate", b"{}", 409),
            ("POST", "/v1/keys/clinic:none/suspend", b'{"extra":1}', 400),
            ("POST", "/v1/keys/clinic:x/destroy", b'{"confirm":"other"}', 400),
            ("POST", "/v1/keys/clinic:x/explode", b"{}", 404),
            ("GET", "/v1/keys/clinic:none", b"", 404),
            ("POST", "/v1/subjects", b'{"standing":"shut"}', 400),
            ("POST", "/v1/subjects", b'{"standing":"odd","subject":"x"}', 400),
        ],
    )
    async def test_refuses_what_is_not_theirs_or_not_well_formed(
        self, served: Served, method, path, body, status
    ):
        """Another tenant's keys, malformed paths, unknown changes: refused and unchanged."""
        before = len(await served.world.records("key.lifecycle"))
        found, _, _ = await served.call(method, path, body)

        assert found == status
        assert len(await served.world.records("key.lifecycle")) == before

    async def test_needs_the_scope(self, served: Served):
        """A caller without the scope operates on nothing."""
        token = served.authority.token(served.holder.jkt, scope="openid")
        status, _, _ = await served.call("GET", "/v1/keys", token=token)

        assert status == 403

    async def test_a_change_spends_its_proof(self, served: Served):
        """The same proof does not rotate twice."""
        path = "/v1/keys/clinic:archive:2026"
        await served.call("POST", path, b"{}")
        token = served.authority.token(served.holder.jkt)
        headers = served.holder.headers(f"{served.origin}{path}/rotate", token)
        statuses = [
            (await served.call("POST", f"{path}/rotate", b"{}", token=token, headers=headers))[0]
            for _ in range(2)
        ]

        assert statuses[0] == 200
        assert statuses[1] >= 400
        versions = served.world.worker.projection.registry.every()
        assert sum(found.path == "clinic:archive:2026" for found in versions) == 2

    async def test_a_subject_is_shut_out_and_let_in_again(self, served: Served):
        """Over REST, by the operator of its tenant."""
        shut = b'{"standing":"shut","subject":"doctor"}'
        opened = b'{"standing":"open","subject":"doctor"}'
        operator = [served.authority.token(served.holder.jkt, sub="operator") for _ in range(2)]
        first, _, _ = await served.call("POST", "/v1/subjects", shut, token=operator[0])
        refused, _, _ = await served.rewrap()
        second, _, _ = await served.call("POST", "/v1/subjects", opened, token=operator[1])
        status, _, _ = await served.rewrap()

        assert (first, refused, second, status) == (200, 403, 200, 200)

    async def test_an_operator_that_is_shut_out_operates_on_nothing(self, served: Served):
        """It makes no key, changes none, and cannot let itself in again."""
        shut = b'{"standing":"shut","subject":"doctor"}'
        opened = b'{"standing":"open","subject":"doctor"}'
        await served.call("POST", "/v1/subjects", shut)
        before = len(await served.world.records("key.lifecycle"))
        statuses = [
            (await served.call("POST", "/v1/keys/clinic:new", b"{}"))[0],
            (await served.call("GET", "/v1/keys"))[0],
            (await served.call("POST", "/v1/subjects", opened))[0],
            (await served.call("GET", "/v1/publickeys?dataset=new"))[0],
        ]

        assert statuses == [403] * 4
        assert len(await served.world.records("key.lifecycle")) == before
        reasons = {record["rsn"] for record in await served.world.records("denied")}
        assert reasons == {"subject revoked"}

    async def test_a_closed_tenant_can_only_be_opened_again(self, served: Served):
        """Its operators change nothing else meanwhile."""
        closed, _, _ = await served.call("POST", "/v1/tenants", b'{"standing":"shut"}')
        refused, _, _ = await served.call("POST", "/v1/keys/clinic:new", b"{}")
        opened, _, _ = await served.call("POST", "/v1/tenants", b'{"standing":"open"}')
        made, _, _ = await served.call("POST", "/v1/keys/clinic:new", b"{}")

        assert (closed, refused, opened, made) == (200, 403, 200, 200)

    async def test_refusals_are_on_record(self, served: Served):
        """An operator's reach for another tenant, and a caller without the scope."""
        await served.call("GET", "/v1/keys/globex:records")
        token = served.authority.token(served.holder.jkt, scope="openid")
        await served.call("GET", "/v1/keys", token=token)
        reasons = [record["rsn"] for record in await served.world.records("denied")]

        assert reasons == [
            "operator: key of another tenant",
            "operator: lacks the scope envelock:keys",
        ]

    async def test_new_paths_by_first_use_are_limited(self, served: Served):
        """Naming datasets cannot fill the token: after a while it is refused."""
        statuses = [
            (await served.call("GET", f"/v1/publickeys?dataset=d{number}"))[0]
            for number in range(22)
        ]

        assert statuses.count(200) == 20
        assert statuses[-1] == 429

    async def test_key_states_are_not_told_without_a_decision(self, served: Served):
        """A suspended dataset seals nothing, and does not say why."""
        await served.call("GET", "/v1/publickeys?dataset=records")
        await served.call("POST", "/v1/keys/clinic:records/suspend", b'{"below":true}')
        status, body, _ = await served.call("GET", "/v1/publickeys?dataset=records")

        assert status == 409
        assert b"suspended" not in body


class TestPublished:
    """Public keys, configuration, health."""

    async def test_publishes_a_key_with_the_receipt_of_its_record(self, served: Served):
        """The receipt's record introduces that very key."""
        status, body, _ = await served.call("GET", "/v1/publickeys?dataset=records")
        published = json.loads(body)
        record = Receipt.parse(published["receipt"]).verify(served.world.parts.ledger_key)

        assert status == 200
        ids = [f"{key['path']}:v{key['version']}" for key in record.fields["keys"]]
        assert published["kid"] in ids

    @pytest.mark.parametrize("algorithm", ["ec:secp256r1", "rsa:2048"])
    async def test_gives_stock_clients_their_public_key(self, served: Served, algorithm: str):
        """`PublicKey` answers with PEM and key id."""
        body = json.dumps({"algorithm": algorithm}).encode()
        status, answer, _ = await served.call("POST", "/kas.AccessService/PublicKey", body)

        assert status == 200
        assert json.loads(answer)["publicKey"].startswith("-----BEGIN PUBLIC KEY-----")

    async def test_an_unknown_algorithm_is_404(self, served: Served):
        """There is no key of that kind."""
        status, _, _ = await served.call("GET", "/v1/publickeys?algorithm=rot13")

        assert status == 404

    async def test_health_says_no_when_the_ledger_is_gone(self, served: Served):
        """A KAS that could release nothing is not healthy; strangers hear what and since when."""
        health = served.world.worker.watch.health
        await health.look()
        async with ClientSession() as session:
            async with session.get(f"{served.origin}/healthz") as answer:
                before = answer.status, await answer.json()
            await served.world.ledger.aclose()
            await health.look()
            async with session.get(f"{served.origin}/healthz") as answer:
                after, told = answer.status, await answer.json()

        [part] = told["parts"]
        assert before == (200, {"status": "ok"})
        assert (after, told["status"]) == (503, "unavailable")
        assert (part["name"], part["state"]) == ("ledger", "down")
        assert set(part) == {"name", "state", "since"}

    async def test_shows_the_keys_whose_decisions_count(self, served: Served):
        """The pinned keys of the PDP, as a JWK set."""
        url = f"{served.origin}/.well-known/jwks.json"
        async with ClientSession() as session, session.get(url) as answer:
            keys = (await answer.json())["keys"]

        assert [key["kid"] for key in keys] == ["pdp-1"]


class TestAnnouncements:
    """What the PDP tells over the KAS's Unix socket."""

    @pytest.fixture
    async def announce(self, served: Served, tmp_path: Path):
        """Posts an announcement."""
        path = tmp_path / "kas.sock"
        running = runner(served.world.worker.internal_app)
        await running.setup()
        await web.SockSite(running, bind(path)).start()

        async def post(**fields: object):
            connector = UnixConnector(str(path))
            async with ClientSession(connector=connector) as session:
                url = "http://kas/internal/v1/policies"
                async with session.post(url, json=fields) as answer:
                    return answer.status, await answer.json()

        yield post
        await running.cleanup()

    async def test_epochs_count_up_and_the_current_one_stays(self, announce):
        """A new digest is a new epoch; the same digest again is the same one."""
        fields = {"tenant": "clinic", "namespaces": ["clinic.example"]}
        digests = [b64url(bytes([n]) * 32) for n in (1, 1, 2)]
        epochs = [(await announce(bundle=one, **fields))[1]["epoch"] for one in digests]

        assert epochs == [2, 2, 3]

    async def test_an_older_bundle_needs_an_operator(self, announce):
        """Rolling back is refused unless it is confirmed, and then on record."""
        fields = {"tenant": "clinic", "namespaces": ["clinic.example"]}
        older, newer = (b64url(bytes([n]) * 32) for n in (1, 2))
        for one in (older, newer):
            await announce(bundle=one, **fields)
        refused, problem = await announce(bundle=older, **fields)
        confirmed, epoch = await announce(bundle=older, confirm=True, **fields)

        assert (refused, problem["code"]) == (409, "policy_rollback")
        assert (confirmed, epoch["epoch"]) == (200, 4)

    async def test_a_namespace_belongs_to_one_tenant(self, announce):
        """Another tenant cannot claim it."""
        status, problem = await announce(
            tenant="globex", bundle=b64url(bytes(32)), namespaces=["clinic.example"]
        )

        assert (status, problem["code"]) == (409, "conflict")


def test_every_error_of_the_rooms_has_a_status():
    """The one table names statuses that exist."""
    assert set(PROBLEMS.values()) <= set(STATUS)


async def test_two_workers_share_one_view(tmp_path: Path):
    """A key that one worker made is found by the other when it is named."""
    async with running_world(tmp_path) as world:
        other = type(world.worker)(world.parts)
        sealed = await world.seal()
        opened = await world.request(world.person("doctor"), sealed).send(other)

        assert opened.shares == [sealed.share]
        assert receipt_of(opened.answer) is not None

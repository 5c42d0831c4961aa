"""What stock clients send and get, codec by codec, over real HTTP."""

import base64
import gzip
import json
import time
from pathlib import Path

import pytest
from aiohttp import ClientSession
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.protobuf.any_pb2 import Any
from google.protobuf.struct_pb2 import Struct
from kas.served import REWRAP, Served, running_served

from envelock_formats.framing import b64
from envelock_formats.keyid import KeyPath
from envelock_formats.wire import RewrapBody
from envelock_formats.wrap import ec_from_pem, open_answer, public_pem
from envelock_kas.keys.lifecycle import Actor
from envelock_kas.opentdf import opentdf_pb2 as pb
from envelock_kas.opentdf.settings import OpenTdfSettings
from envelock_kas.records import Origin

PUBLIC_KEY = "/kas.AccessService/PublicKey"
WELL_KNOWN = "/wellknownconfiguration.WellKnownService/GetWellKnownConfiguration"
HEALTH = "/grpc.health.v1.Health/Check"
SERVERS = "/policy.kasregistry.KeyAccessServerRegistryService/ListKeyAccessServers"
ATTRIBUTES = "/policy.attributes.AttributesService/"
AUTHORIZATION = "/authorization.v2.AuthorizationService/"
DECISION = f"{AUTHORIZATION}GetDecision"
DECISIONS = f"{AUTHORIZATION}GetDecisionMultiResource"
PREFLIGHT = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
PROTO = {"Content-Type": "application/proto"}


def nested_any(depth: int) -> Any:
    """An `Any` in an `Any`, *depth* times."""
    claims = Any()
    for _ in range(depth):
        outer = Any()
        outer.Pack(claims)
        claims = outer
    return claims


def nested_struct(depth: int) -> Any:
    """A `Struct` in a `Struct`, *depth* times."""
    inner = Struct()
    for _ in range(depth):
        outer = Struct()
        outer.fields["a"].struct_value.CopyFrom(inner)
        inner = outer
    claims = Any()
    claims.Pack(inner)
    return claims


async def rewrap(served: Served, body: RewrapBody, *, codec: str, pack: bool = False):
    """Send *body* as a stock client does; returns status, media type and answer."""
    request = served.world.signed(served.person, body)
    token = served.authority.token(served.holder.jkt)
    headers = served.holder.headers(f"{served.origin}{REWRAP}", token)
    if codec == "proto":
        sent = pb.RewrapRequest(signed_request_token=request.token).SerializeToString()
        headers |= PROTO
    else:
        sent = json.dumps({"signedRequestToken": request.token, "newer": {}}).encode()
        headers |= {"Content-Type": "application/json"}
    if pack:
        sent, headers = gzip.compress(sent), headers | {"Content-Encoding": "gzip"}
    status, answer, got = await served.call("POST", REWRAP, sent, token=token, headers=headers)
    return status, got["Content-Type"], answer


def asked(served: Served, sealed) -> tuple[RewrapBody, object]:
    """A request for *sealed*, and the client's key."""
    client = served.world.signed(served.person, RewrapBody("")).key
    return served.world.body(sealed, public_pem(client.public_key())), client


class TestCodecs:
    """JSON and protobuf say the same."""

    @pytest.mark.parametrize("pack", [False, True])
    async def test_a_rewrap_in_protobuf_gives_the_share(self, served: Served, *, pack: bool):
        """As the Go SDK sends it, and packed as the Python one does."""
        sealed = await served.world.seal()
        body, client = asked(served, sealed)
        status, media, text = await rewrap(served, body, codec="proto", pack=pack)
        answer = pb.RewrapResponse.FromString(text)
        [result] = answer.responses[0].results

        assert (status, media) == (200, "application/proto")
        assert (result.key_access_object_id, result.status) == ("kao-0", "permit")
        assert list(result.metadata["X-Required-Obligations"].list_value) == []
        assert result.metadata["receipt"].string_value.startswith("c2sp.org/tlog-proof")
        share = open_answer(result.kas_wrapped_key, client, ec_from_pem(answer.session_public_key))
        assert share == sealed.share

    async def test_an_rsa_client_gets_its_share_without_a_session_key(self, served: Served):
        """RSA-OAEP to the client's own key."""
        sealed = await served.world.seal()
        client = rsa.generate_private_key(65537, 2048)
        body = served.world.body(sealed, public_pem(client.public_key()))
        _, _, text = await rewrap(served, body, codec="proto")
        answer = pb.RewrapResponse.FromString(text)

        assert answer.session_public_key == ""
        wrapped = answer.responses[0].results[0].kas_wrapped_key
        assert open_answer(wrapped, client, None) == sealed.share

    async def test_a_denial_is_told_per_key_in_the_words_that_clients_match(self, served: Served):
        """200, `fail`, and what the Go SDK looks for."""
        served.world.pdp.reasons["doctor"] = "no"
        body, _ = asked(served, await served.world.seal())
        status, _, text = await rewrap(served, body, codec="proto")
        [result] = pb.RewrapResponse.FromString(text).responses[0].results

        assert (status, result.status, result.kas_wrapped_key) == (200, "fail", b"")
        assert "code = PermissionDenied desc = forbidden" in result.error

    async def test_obligations_that_were_not_met_are_named(self, served: Served):
        """So that a client can say what it lacks."""
        served.world.pdp.obligations = ("https://clinic.example/obl/mark/value/water",)
        body, _ = asked(served, await served.world.seal())
        _, _, text = await rewrap(served, body, codec="proto")
        [result] = pb.RewrapResponse.FromString(text).responses[0].results

        named = list(result.metadata["X-Required-Obligations"].list_value)
        assert (result.status, named) == ("fail", list(served.world.pdp.obligations))

    async def test_an_error_is_json_whatever_the_codec(self, served: Served):
        """As the protocol has it."""
        status, body, headers = await served.call(
            "POST", REWRAP, b"\xff\xff", headers=PROTO | {"Authorization": "Bearer nobody"}
        )

        assert (status, headers["Content-Type"]) == (401, "application/json")
        assert json.loads(body)["code"] == "unauthenticated"

    async def test_bytes_that_are_no_message_are_refused_on_record(self, served: Served):
        """400 with the protocol's words."""
        token = served.authority.token(served.holder.jkt)
        headers = served.holder.headers(f"{served.origin}{REWRAP}", token) | PROTO
        status, body, _ = await served.call(
            "POST", REWRAP, b"\x0a\xff\xff\xff\xff\x0f", token=token, headers=headers
        )
        [record] = await served.world.records("denied")

        assert (status, json.loads(body)["code"]) == (400, "invalid_argument")
        assert "malformed" in record["rsn"]

    async def test_another_media_type_is_refused(self, served: Served):
        """gRPC proper is not spoken."""
        headers = {"Content-Type": "application/grpc", "Authorization": "Bearer nobody"}
        status, _, _ = await served.call("POST", HEALTH, b"\0\0\0\0\0", headers=headers)

        assert status == 415


class TestOlderForm:
    """One key, at the top level, as the Java SDK sends it."""

    async def body(self, served: Served) -> tuple[RewrapBody, object, bytes]:
        """A request in the older form only."""
        sealed = await served.world.seal()
        body, client = asked(served, sealed)
        older = replace_form(body, sealed)
        return older, client, sealed.share

    @pytest.mark.parametrize("codec", ["json", "proto"])
    async def test_the_share_is_at_the_top_level_too(self, served: Served, codec: str):
        """`entityWrappedKey` and `sessionPublicKey`."""
        older, client, share = await self.body(served)
        _, _, text = await rewrap(served, older, codec=codec)
        if codec == "proto":
            answer = pb.RewrapResponse.FromString(text)
            wrapped, session = answer.entity_wrapped_key, answer.session_public_key
        else:
            found = json.loads(text)
            wrapped = base64.b64decode(found["entityWrappedKey"])
            session = found["sessionPublicKey"]

        assert open_answer(wrapped, client, ec_from_pem(session)) == share

    async def test_a_denial_is_an_error_of_the_request(self, served: Served):
        """403, and the record is there as for any other."""
        served.world.pdp.reasons["doctor"] = "no"
        older, _, _ = await self.body(served)
        status, _, text = await rewrap(served, older, codec="proto")
        [record] = await served.world.records("denied")

        assert (status, json.loads(text)["code"]) == (403, "permission_denied")
        assert "desc = forbidden" in json.loads(text)["message"]
        assert record["objs"][0]["rsn"] == "no"

    async def test_a_changed_policy_is_a_bad_request(self, served: Served):
        """In the words by which clients tell tampering from denial."""
        older, _, _ = await self.body(served)
        other = (await self.body(served))[0]
        mixed = RewrapBody(older.clientPublicKey, keyAccess=older.keyAccess, policy=other.policy)
        status, _, text = await rewrap(served, mixed, codec="proto")

        assert status == 400
        assert "desc = bad request" in json.loads(text)["message"]

    @pytest.mark.parametrize("path", ["/v2/rewrap", "/kas/v2/rewrap"])
    async def test_the_older_addresses_release_too(self, served: Served, path: str):
        """JSON in and out; by the same steps, with a record."""
        older, client, share = await self.body(served)
        request = served.world.signed(served.person, older)
        sent = json.dumps({"signedRequestToken": request.token}).encode()
        status, text, _ = await served.call("POST", path, sent)
        found = json.loads(text)
        session = ec_from_pem(found["sessionPublicKey"])

        assert status == 200
        assert open_answer(base64.b64decode(found["entityWrappedKey"]), client, session) == share
        assert len(await served.world.records("release")) == 1

    async def test_half_of_it_is_refused(self, served: Served):
        """A key without a policy asks for nothing."""
        older, _, _ = await self.body(served)
        half = RewrapBody(older.clientPublicKey, keyAccess=older.keyAccess)
        status, _, _ = await rewrap(served, half, codec="json")

        assert status == 400


def replace_form(body: RewrapBody, sealed) -> RewrapBody:
    """The same wish in the older form alone."""
    return RewrapBody(body.clientPublicKey, keyAccess=sealed.keys[0], policy=sealed.policy)


class TestPublicKey:
    """Keys for new objects."""

    async def test_a_stranger_gets_the_base_key(self, served: Served):
        """The web SDK asks before it has a token; one tenant's key is meant."""
        async with ClientSession() as session:
            asked = {"algorithm": "rsa:2048", "v": "2"}
            async with session.post(f"{served.origin}{PUBLIC_KEY}", json=asked) as answer:
                found = await answer.json()

        assert found["kid"].startswith("clinic:records:")
        assert found["publicKey"].startswith("-----BEGIN PUBLIC KEY-----")

    async def test_who_names_no_algorithm_gets_rsa(self, served: Served):
        """Some clients can do nothing else, and would wrap to an EC key as if it were one."""
        _, body, _ = await served.call("POST", PUBLIC_KEY, b"{}")
        key = load_pem_public_key(json.loads(body)["publicKey"].encode())

        assert isinstance(key, rsa.RSAPublicKey)

    @pytest.mark.parametrize("base", ["", "/kas"])
    async def test_the_older_addresses_give_keys_too(self, served: Served, base: str):
        """The text alone, or with its id."""
        async with ClientSession() as session:
            async with session.get(f"{served.origin}{base}/kas_public_key") as answer:
                text = await answer.json()
            query = {"algorithm": "ec:secp256r1", "v": "2"}
            async with session.get(
                f"{served.origin}{base}/v2/kas_public_key", params=query
            ) as answer:
                found = await answer.json()

        assert text.startswith("-----BEGIN PUBLIC KEY-----")
        assert found["kid"].startswith("clinic:records:")

    async def test_version_1_leaves_the_key_id_out(self, served: Served):
        """As old clients want it."""
        _, body, _ = await served.call("POST", PUBLIC_KEY, b'{"v":"1"}')

        assert json.loads(body)["kid"] == ""

    async def test_an_rsa_key_can_be_had_as_a_jwk(self, served: Served):
        """`fmt` of `jwk`."""
        _, body, _ = await served.call("POST", PUBLIC_KEY, b'{"fmt":"jwk","algorithm":"rsa:2048"}')

        assert json.loads(json.loads(body)["publicKey"])["kty"] == "RSA"

    async def test_no_other_key_can(self, tmp_path: Path):
        """Not even of a kind that no general library reads: 400, whoever asks."""
        kinds = ["ec:secp256r1", "mlkem:768", "hpqt:xwing"]
        async with running_served(tmp_path, algorithms=kinds) as served, ClientSession() as session:
            statuses: list[int] = []
            for kind in kinds:
                body = {"fmt": "jwk", "algorithm": kind}
                async with session.post(f"{served.origin}{PUBLIC_KEY}", json=body) as answer:
                    statuses.append(answer.status)

        assert statuses == [400] * 3

    async def test_an_unknown_algorithm_is_not_found(self, served: Served):
        """By name."""
        status, body, _ = await served.call("POST", PUBLIC_KEY, b'{"algorithm":"rot:13"}')

        assert (status, json.loads(body)["code"]) == (404, "not_found")

    async def test_a_stranger_makes_no_work_twice(self, served: Served):
        """What was found, or not, is told again; what nobody knows is looked for nowhere."""
        await served.world.published()
        asked = 0
        ledger = served.world.worker.surface.publisher._projection  # noqa: SLF001 counts its readings
        read = ledger.catch_up

        async def counted() -> None:
            nonlocal asked
            asked += 1
            await read()

        ledger.catch_up = counted
        statuses: list[int] = []
        async with ClientSession() as session:
            for algorithm in ("rsa:2048", "rsa:4096", "rot:13") * 3:
                body = {"algorithm": algorithm}
                async with session.post(f"{served.origin}{PUBLIC_KEY}", json=body) as answer:
                    statuses.append(answer.status)

        assert statuses == [200, 404, 404] * 3
        assert asked == 2

    async def test_a_closed_tenant_has_no_base_key(self, served: Served):
        """And a stranger learns no more than that."""
        served.world.worker.projection._standing["tenant:clinic"] = 1  # noqa: SLF001 as a record would
        async with (
            ClientSession() as session,
            session.post(f"{served.origin}{PUBLIC_KEY}", json={}) as answer,
        ):
            assert answer.status == 409


class TestDiscovery:
    """What is asked before anything else."""

    async def test_both_forms_say_the_same(self, served: Served):
        """REST bare, Connect inside `configuration`; by POST and by GET, in both codecs."""
        await served.world.published()
        url = f"{served.origin}{WELL_KNOWN}"
        async with ClientSession() as session:
            async with session.get(f"{served.origin}/.well-known/opentdf-configuration") as answer:
                bare = await answer.json()
            async with session.post(url, json={}) as answer:
                posted = await answer.json()
            query = {"connect": "v1", "encoding": "proto", "base64": "1", "message": ""}
            async with session.get(url, params=query) as answer:
                got = pb.GetWellKnownConfigurationResponse.FromString(await answer.read())

        assert posted["configuration"] == bare
        assert got.configuration["base_key"]["public_key"]["kid"].startswith("clinic:records:")
        assert bare["base_key"]["public_key"]["algorithm"] == "ec:secp256r1"

    async def test_looking_makes_no_key(self, served: Served):
        """A fresh deployment has no base key until somebody seals."""
        async with (
            ClientSession() as session,
            session.post(f"{served.origin}{WELL_KNOWN}", json={}) as answer,
        ):
            found = await answer.json()

        assert "base_key" not in found["configuration"]
        assert await served.world.records("key.lifecycle") == []

    async def test_health_is_that_of_the_worker(self, served: Served):
        """Protobuf `08 01` is what otdfctl waits for; `08 02` is said while a part is down."""
        async with ClientSession() as session:
            async with session.get(f"{served.origin}/healthz") as answer:
                down = answer.status != 200
            async with session.post(f"{served.origin}{HEALTH}", data=b"", headers=PROTO) as answer:
                assert await answer.read() == (b"\x08\x02" if down else b"\x08\x01")

    async def test_the_registry_lists_former_addresses(self, tmp_path: Path):
        """Clients refuse files whose address is on no list."""
        old = "https://kas.old.example/kas"
        async with running_served(tmp_path, kas_aliases=[old]) as served:
            _, body, _ = await served.call("POST", SERVERS, b"{}")

        assert [one["uri"] for one in json.loads(body)["keyAccessServers"]][1:] == [old]

    async def test_the_registry_lists_this_kas(self, served: Served):
        """By the address that files have it by."""
        status, body, _ = await served.call("POST", SERVERS, b'{"pagination":{}}')
        [server] = json.loads(body)["keyAccessServers"]

        assert (status, server["uri"]) == (200, served.world.parts.settings.url)

    @pytest.mark.parametrize(
        "query",
        [
            {"encoding": "xml"},
            {"encoding": "json", "compression": "br"},
            {"encoding": "json", "message": "{"},
            {"encoding": "json", "message": "*", "base64": "1"},
            {"encoding": "proto", "message": b64(b"\x0a\xff"), "base64": "1"},
            {"encoding": "json", "message": "x" * 17000},
        ],
    )
    async def test_a_malformed_get_is_refused(self, served: Served, query):
        """In the protocol's own form."""
        async with (
            ClientSession() as session,
            session.get(f"{served.origin}{HEALTH}", params=query) as answer,
        ):
            assert answer.status in {400, 413, 415}
            assert "code" in await answer.json()

    async def test_a_rewrap_cannot_be_got(self, served: Served):
        """Only what has no side effects answers GET; what is served by POST is not unknown."""
        async with ClientSession() as session, session.get(f"{served.origin}{REWRAP}") as answer:
            assert (answer.status, (await answer.json())["code"]) == (405, "unimplemented")


@pytest.mark.parametrize(
    "path", ["/policy.namespaces.NamespaceService/ListNamespaces", "/kas.AccessService/Nothing"]
)
async def test_what_is_not_served_is_unimplemented(served: Served, path):
    """501 with the code that clients fall back on."""
    async with ClientSession() as session, session.post(f"{served.origin}{path}") as answer:
        assert (answer.status, (await answer.json())["code"]) == (501, "unimplemented")


class TestBrowsers:
    """Pages of other origins."""

    async def test_none_may_call_unless_the_settings_say_so(self, served: Served):
        """The default."""
        async with (
            ClientSession() as session,
            session.options(f"{served.origin}{REWRAP}", headers=PREFLIGHT) as answer,
        ):
            assert "Access-Control-Allow-Origin" not in answer.headers

    @pytest.mark.parametrize(
        ("origins", "allowed"),
        [
            (("https://app.example",), "https://app.example"),
            (("*",), "*"),
            (("https://other.example",), None),
        ],
    )
    async def test_those_in_the_settings_may(self, tmp_path: Path, origins, allowed):
        """The preflight names the headers of every client; answers can be read."""
        settings = OpenTdfSettings(browser_origins=origins)
        async with running_served(tmp_path, settings) as served, ClientSession() as session:
            url = f"{served.origin}{HEALTH}"
            async with session.options(url, headers=PREFLIGHT) as answer:
                preflight = answer.headers
            async with session.post(
                url, json={}, headers={"Origin": "https://app.example"}
            ) as answer:
                got = answer.headers

        assert got.get("Access-Control-Allow-Origin") == allowed
        assert preflight.get("Access-Control-Allow-Origin") == allowed
        if allowed is not None:
            assert "dpop" in preflight["Access-Control-Allow-Headers"]
            assert "Access-Control-Allow-Credentials" not in got

    @pytest.mark.parametrize("origin", ["app.example", "https://app.example/", "ftp://a", ""])
    def test_what_is_no_origin_is_refused(self, origin: str):
        """At start, not at the first page that fails."""
        with pytest.raises(ValueError, match="not an origin"):
            OpenTdfSettings(browser_origins=(origin,))


class TestBombs:
    """Small requests that would become large, and what is refused before it is read."""

    async def posted(self, served: Served, path: str, body: bytes, codec: str) -> int:
        """The status of a packed message without a token."""
        headers = {"Content-Type": codec, "Content-Encoding": "gzip"}
        async with (
            ClientSession() as session,
            session.post(
                f"{served.origin}{path}", data=gzip.compress(body), headers=headers
            ) as answer,
        ):
            return answer.status

    @pytest.mark.parametrize("path", [DECISIONS, f"{ATTRIBUTES}GetAttributeValuesByFqns", SERVERS])
    async def test_without_a_token_nothing_is_read(self, served: Served, path: str):
        """Whatever the body would have become."""
        begun = time.monotonic()
        status = await self.posted(served, path, b"\x1a\x00" * (1 << 20), "application/proto")

        assert status == 401
        assert time.monotonic() - begun < 2

    @pytest.mark.parametrize("path", [PUBLIC_KEY, WELL_KNOWN, HEALTH])
    async def test_what_strangers_send_is_short(self, served: Served, path: str):
        """16 KiB, counted unpacked."""
        begun = time.monotonic()
        body = b'{"x":[' + b"{}," * (1 << 20) + b"{}]}"

        assert await self.posted(served, path, body, "application/json") == 413
        assert time.monotonic() - begun < 2

    @pytest.mark.parametrize("path", [REWRAP, "/v1/datakeys", "/v1/rebind"])
    async def test_junk_around_a_request_token_is_not_parsed(self, served: Served, path: str):
        """The message is flat; brackets by the million are refused by their number."""
        begun = time.monotonic()
        body = b'{"signedRequestToken":"a","x":[' + b"[]," * 300_000 + b"[]]}"
        status, _, _ = await served.call("POST", path, body)

        assert status == 400
        assert time.monotonic() - begun < 2

    @pytest.mark.parametrize("path", [DECISIONS, f"{ATTRIBUTES}GetKeyMappingsByFqns"])
    async def test_a_long_question_costs_as_much_as_many(self, tmp_path: Path, path: str):
        """Whoever may ask often may not for that reason ask so much."""
        guard = {"subject_per_second": 0.001, "subject_burst": 40}
        async with running_served(tmp_path, guard=guard) as served:
            body = b'{"fqns":[' + b'"x",' * 50_000 + b'"x"]}'
            sent = (b"{}", b"{}", body, b"{}")
            statuses = [(await served.call("POST", path, text))[0] for text in sent]

        assert statuses == [400, 400, 400, 429]

    async def test_more_questions_than_a_call_may_have_are_refused_unread(self, served: Served):
        """As protobuf makes them: two bytes each."""
        url = f"{served.origin}{DECISIONS}"
        token = served.authority.token(served.holder.jkt)
        headers = served.holder.headers(url, token) | PROTO
        body = b"\x1a\x00" * 200_000
        status, text, _ = await served.call("POST", DECISIONS, body, token=token, headers=headers)

        assert (status, "1000" in json.loads(text)["message"]) == (400, True)

    @pytest.mark.parametrize(
        "claims",
        [
            nested_any(600),
            Any(type_url="type.googleapis.com/google.protobuf.Struct", value=b"\xff"),
            Any(type_url="type.googleapis.com/google.protobuf.Value", value=b""),
            Any(type_url="type.googleapis.com/google.protobuf.Struct", value=b"\0" * 70_000),
            nested_struct(40),
        ],
        ids=["any", "garbage", "other", "long", "deep"],
    )
    async def test_claims_are_one_flat_struct(self, served: Served, claims):
        """400: not a matter of who asks, nor of the PDP."""
        message = pb.GetDecisionRequest()
        message.entity_identifier.entity_chain.entities.add(user_name="a", claims=claims)
        url = f"{served.origin}{DECISION}"
        token = served.authority.token(served.holder.jkt)
        headers = served.holder.headers(url, token) | PROTO
        status, _, _ = await served.call(
            "POST", DECISION, message.SerializeToString(), token=token, headers=headers
        )

        assert status == 400


class TestStanding:
    """Who is shut out learns nothing here either."""

    @pytest.mark.parametrize(
        "path",
        [
            PUBLIC_KEY,
            SERVERS,
            f"{ATTRIBUTES}GetAttributeValuesByFqns",
            DECISIONS,
            f"{AUTHORIZATION}GetEntitlements",
        ],
    )
    async def test_a_closed_tenant_gets_no_answer(self, served: Served, path: str):
        """403, on record."""
        served.world.worker.projection._standing["tenant:clinic"] = 1  # noqa: SLF001 as a record would
        status, _, _ = await served.call("POST", path, b"{}")

        assert status == 403
        assert (await served.world.records("denied"))[0]["rsn"] == "tenant closed"


async def test_a_suspended_key_is_told_no_more(served: Served):
    """Whatever was found a moment ago."""
    async with ClientSession() as session:
        url = f"{served.origin}{PUBLIC_KEY}"
        async with session.post(url, json={}) as answer:
            before = answer.status
        await served.world.worker.lifecycle.change(
            KeyPath("clinic:records"), "suspend", below=True, actor=Actor(Origin("r-test"))
        )
        asked = served.world.custody.operations.total()
        statuses: list[int] = []
        for _ in range(3):
            async with session.post(url, json={}) as answer:
                statuses.append(answer.status)

    assert (before, statuses) == (200, [409] * 3)
    assert served.world.custody.operations.total() == asked

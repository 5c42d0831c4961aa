"""Requests as stock clients send them, each with its peculiarities, against a running server."""

import json
import time
from base64 import b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from interop.deployment import SECRET, Deployment
from interop.wire import (
    JSON,
    PROTO,
    PUBLIC_KEY,
    REWRAP,
    Caller,
    Object,
    call,
    decoded,
    fields,
    pem,
    rewrapped,
    sealed,
    send,
    text_field,
    unwrap_ec,
    unwrap_rsa,
    zipped,
)

WELL_KNOWN = "/wellknownconfiguration.WellKnownService/GetWellKnownConfiguration"
SERVERS = "/policy.kasregistry.KeyAccessServerRegistryService/ListKeyAccessServers"
BY_FQN = "/policy.attributes.AttributesService/GetAttributeValuesByFqns"
BY_MAPPING = "/policy.attributes.AttributesService/GetKeyMappingsByFqns"
HEALTH = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"
FORBIDDEN = "request error\nrpc error: code = PermissionDenied desc = forbidden"
BAD = "request error\nrpc error: code = InvalidArgument desc = bad request"


@pytest.fixture(scope="module")
def session() -> rsa.RSAPrivateKey:
    """A client's RSA key for answers: as good for all tests."""
    return rsa.generate_private_key(65537, 2048)


def entry(found: Object, number: int = 0, **more: object) -> dict:
    """A request for one policy with one object."""
    wanted = {"keyAccessObjectId": f"kao-{number}", "keyAccessObject": found.access}
    return {
        "keyAccessObjects": [wanted],
        "policy": {"id": "policy", "body": found.policy},
        **more,
    }


# The JavaScript SDK: JSON, Bearer, RS256 without `typ`, an hour old and an hour ahead.


def web_body(found: Object, key: rsa.RSAPrivateKey) -> dict:
    """The body that it sends: one object, and the same again in the former place."""
    access = found.access | {"policyBinding": {"hash": found.access["policyBinding"]["hash"]}}
    bare = Object(found.policy, access, found.share)
    return {
        "algorithm": "RS256",
        "keyAccess": access,
        "policy": found.policy,
        "clientPublicKey": pem(key),
        "requests": [entry(bare)],
    }


def web_rewrap(stock: Deployment, name: str, found: Object, key: rsa.RSAPrivateKey):
    """Its call, as *name*."""
    caller = Caller(stock.person(name))
    token = caller.request_token(web_body(found, key), ago=3600, ahead=3600, typ=None)
    headers = {"Authorization": f"Bearer {caller.bearer()}"}
    message = json.dumps({"signedRequestToken": token}).encode()
    return call(caller.person.server + REWRAP, message, JSON, headers)


def test_web_sdk_opens(stock, session):
    """JSON in and out; its request token is an hour old by design, and its binding has no `alg`."""
    found = sealed(stock.running.url, SECRET)

    answer = web_rewrap(stock, "doctor", found, session)

    assert answer.status == 200, answer.body
    assert answer.type.startswith(JSON)
    (response,) = answer.json["responses"]
    (result,) = response["results"]
    assert response["policyId"] == "policy"
    assert (result["keyAccessObjectId"], result["status"]) == ("kao-0", "permit")
    assert unwrap_rsa(session, decoded(result["kasWrappedKey"])) == found.share


def test_web_sdk_is_denied_in_its_words(stock, session):
    """Denied is HTTP 200 with a failure that holds the words by which it types its error."""
    answer = web_rewrap(stock, "accountant", sealed(stock.running.url, SECRET), session)

    assert answer.status == 200, answer.body
    result = answer.json["responses"][0]["results"][0]
    assert (result["status"], result["error"]) == ("fail", f"permission_denied: {FORBIDDEN}")
    assert "kasWrappedKey" not in result


def test_web_sdk_finds_its_way(stock):
    """Configuration and key without a token; servers and attributes with one."""
    person = stock.person("doctor")
    headers = {"Authorization": f"Bearer {Caller(person).bearer()}"}

    known = call(person.server + WELL_KNOWN, b"{}", JSON).json["configuration"]
    key = call(person.server + PUBLIC_KEY, b'{"algorithm":"rsa:2048","v":"2"}', JSON).json
    servers = call(person.server + SERVERS, b'{"pagination":{}}', JSON, headers).json
    asked = json.dumps({"fqns": [SECRET]}).encode()
    values = call(person.server + BY_FQN, asked, JSON, headers).json["fqnAttributeValues"]

    assert known["idp"]["token_endpoint"].startswith(person.issuer)
    assert key["publicKey"].startswith("-----BEGIN PUBLIC KEY-----")
    assert person.server in [server["uri"] for server in servers["keyAccessServers"]]
    assert values[SECRET]["value"]["fqn"] == SECRET
    assert values[SECRET]["attribute"]["rule"] == "ATTRIBUTE_RULE_TYPE_ENUM_HIERARCHY"


def test_what_is_not_there_is_said(stock):
    """An unknown attribute is `not_found`, and an unknown procedure `unimplemented`."""
    person = stock.person("doctor")
    headers = {"Authorization": f"Bearer {Caller(person).bearer()}"}
    asked = json.dumps({"fqns": [SECRET.replace("secret", "unheard")]}).encode()

    unknown = call(person.server + BY_FQN, asked, JSON, headers)
    missing = call(
        person.server + "/policy.actions.ActionService/ListActions", b"{}", JSON, headers
    )

    assert (unknown.status, unknown.json["code"]) == (404, "not_found")
    assert (missing.status in {404, 501}, missing.json["code"]) == (True, "unimplemented")


# The Go SDK and otdfctl: protobuf, tokens bound to an ES256 key, many objects in a request.


def go_rewrap(caller: Caller, body: dict):
    """Its call: proof and context in headers, the request token signed with the proof's key."""
    url = caller.person.server + REWRAP
    token = caller.bound()
    context = b64encode(b'{"obligations":{"fulfillableFQNs":null}}').decode()
    headers = {
        "Authorization": f"DPoP {token}",
        "DPoP": caller.proof(url, token),
        "X-Rewrap-Additional-Context": context,
        "User-Agent": "connect-go/1.20.0 (go1.26)",
        "Accept-Encoding": "gzip",
    }
    return call(url, text_field(1, caller.request_token(body)), PROTO, headers)


def test_go_opens_to_an_ec_key(stock):
    """Two objects of one policy in a request, answered to a P-256 key with one session key."""
    key = ec.generate_private_key(ec.SECP256R1())
    found = sealed(stock.running.url, SECRET, sid="", schemaVersion="1.0")
    body = {
        "clientPublicKey": pem(key),
        "requests": [
            {
                "keyAccessObjects": [
                    {"keyAccessObjectId": f"kao-{number}", "keyAccessObject": found.access}
                    for number in range(2)
                ],
                "policy": {"id": "policy", "body": found.policy},
            }
        ],
    }

    answer = go_rewrap(Caller(stock.person("doctor"), "ES256"), body)

    assert answer.status == 200, answer.body
    assert answer.type.startswith(PROTO)
    read = rewrapped(answer.body)
    assert [(result.policy, result.object) for result in read.results] == [
        ("policy", "kao-0"),
        ("policy", "kao-1"),
    ]
    shares = {unwrap_ec(key, read.session_key, result.key) for result in read.results}
    assert shares == {found.share}


def test_go_in_bulk(stock, session):
    """Many policies, each with its own `kao-0`; one that is not bound fails alone, in its words."""
    found = [sealed(stock.running.url, SECRET) for _ in range(5)]
    found[3].access["policyBinding"] = found[2].access["policyBinding"]
    requests = [
        entry(item) | {"policy": {"id": f"policy-{number}", "body": item.policy}}
        for number, item in enumerate(found)
    ]

    answer = go_rewrap(
        Caller(stock.person("doctor"), "ES256"),
        {"clientPublicKey": pem(session), "requests": requests},
    )

    assert answer.status == 200, answer.body
    results = {result.policy: result for result in rewrapped(answer.body).results}
    assert set(results) == {f"policy-{number}" for number in range(5)}
    bad = results.pop("policy-3")
    assert (bad.object, bad.status, bad.key) == ("kao-0", "fail", b"")
    assert bad.error == f"invalid_argument: {BAD}"
    opened = [unwrap_rsa(session, result.key) for result in results.values()]
    assert opened == [item.share for number, item in enumerate(found) if number != 3]


def test_go_asks_for_mappings_and_health(stock):
    """`GetKeyMappingsByFqns` is served or `unimplemented`, whereupon Go asks for values; health."""
    caller = Caller(stock.person("doctor"), "ES256")
    token = caller.bound()

    def asked(path: str, message: bytes):
        url = caller.person.server + path
        headers = {"Authorization": f"DPoP {token}", "DPoP": caller.proof(url, token)}
        return call(url, message, PROTO, headers)

    mapped = asked(BY_MAPPING, text_field(1, SECRET))
    listed = asked(SERVERS, b"")
    until = time.monotonic() + 10  # a server that has just started looks for its parts
    while (healthy := asked(HEALTH, b"").body) != SERVING and time.monotonic() < until:
        time.sleep(0.1)

    assert mapped.status == 200 or mapped.json["code"] == "unimplemented"
    assert healthy == SERVING
    assert stock.running.url.encode() in listed.body


# The Java SDK: protobuf, the first version of Rewrap alone, GET for what has no side effect.


def java_rewrap(stock: Deployment, name: str, found: Object, key: rsa.RSAPrivateKey):
    """Its call: policy and object at the top, signed with the RSA key of its proofs."""
    caller = Caller(stock.person(name))
    url = caller.person.server + REWRAP
    token = caller.bound()
    body = {"policy": found.policy, "clientPublicKey": pem(key), "keyAccess": found.access}
    headers = {"Authorization": f"DPoP {token}", "DPoP": caller.proof(url, token)}
    message = text_field(1, caller.request_token(body, typ=None))
    return call(url, message, PROTO, headers)


def test_java_opens(stock, session):
    """The key stands at the top of the answer, where the first version has it."""
    found = sealed(stock.running.url, SECRET, sid="")

    answer = java_rewrap(stock, "doctor", found, session)

    assert answer.status == 200, answer.body
    assert unwrap_rsa(session, rewrapped(answer.body).entity_key) == found.share


def test_java_is_refused_as_a_whole(stock, session):
    """A denial and a bad binding are Connect errors in JSON, though the request was protobuf."""
    found = sealed(stock.running.url, SECRET)
    unbound = sealed(stock.running.url, SECRET)
    unbound.access["policyBinding"] = found.access["policyBinding"]

    denied = java_rewrap(stock, "accountant", found, session)
    bad = java_rewrap(stock, "doctor", unbound, session)

    assert (denied.status, bad.status) == (403, 400)
    assert denied.type.startswith(JSON)
    assert denied.json["code"] == "permission_denied"
    assert FORBIDDEN in denied.json["message"]
    assert bad.json["code"] == "invalid_argument"
    assert BAD in bad.json["message"]


def test_java_gets_the_configuration(stock):
    """A Connect GET, with the message in the query and the answer in protobuf."""
    query = "?base64=1&connect=v1&encoding=proto&message="

    answer = send("GET", stock.running.url + WELL_KNOWN + query)

    assert answer.status == 200, answer.body
    assert answer.type.startswith(PROTO)
    whole = next(raw for number, raw in fields(answer.body) if number == 1)
    assert b"platform_issuer" in whole
    assert stock.running.issuer.encode() in whole


# otdf-python: protobuf in gzip, however small, Bearer, RS256 with two hours to live.


def test_otdf_python_finds_its_way(stock):
    """REST for the configuration; the key for an empty question is RSA: it knows no other."""
    person = stock.person("doctor")
    headers = {
        "Authorization": f"Bearer {Caller(person).bearer()}",
        "Content-Encoding": "gzip",
        "User-Agent": "connectrpc/0.9.0",
    }

    known = send("GET", f"{person.server}/.well-known/opentdf-configuration").json
    answer = call(person.server + PUBLIC_KEY, zipped(b""), PROTO, headers)

    assert known["platform_issuer"] == person.issuer
    assert answer.status == 200, answer.body
    key = dict(fields(answer.body))
    bits = len(b"".join(key[1].splitlines()[1:-1]))
    assert bits > 300, "an RSA key of 2048 bits is 392 characters of base64"
    assert key[2]


def test_otdf_python_opens(stock, session):
    """Bodies in gzip are read, and the algorithm that it names is of its own key."""
    found = sealed(stock.running.url, SECRET, schemaVersion="1.0")
    caller = Caller(stock.person("doctor"))
    body = {
        "clientPublicKey": pem(session),
        "requests": [entry(found, algorithm="rsa:2048")],
        "keyAccess": found.access,
        "policy": found.policy,
    }
    headers = {"Authorization": f"Bearer {caller.bearer()}", "Content-Encoding": "gzip"}
    message = zipped(text_field(1, caller.request_token(body, ahead=7200)))

    answer = call(caller.person.server + REWRAP, message, PROTO, headers)

    assert answer.status == 200, answer.body
    (result,) = rewrapped(answer.body).results
    assert unwrap_rsa(session, result.key) == found.share


# What none of them may do.


@pytest.mark.parametrize("kind", ["no token", "garbage"])
def test_nobody_without_a_token(stock, session, kind):
    """Without a token, or with one that nobody issued: 401 and `unauthenticated`."""
    found = sealed(stock.running.url, SECRET)
    caller = Caller(stock.person("doctor"))
    message = text_field(1, caller.request_token(web_body(found, session)))
    headers = {} if kind == "no token" else {"Authorization": "Bearer ey.garbage.x"}

    answer = call(caller.person.server + REWRAP, message, PROTO, headers)

    assert (answer.status, answer.json["code"]) == (401, "unauthenticated")


def test_a_proof_by_another_key(stock, session):
    """A bound token opens nothing beside a request token that its key did not sign."""
    found = sealed(stock.running.url, SECRET)
    caller, other = (Caller(stock.person("doctor"), "ES256") for _ in range(2))
    url = caller.person.server + REWRAP
    token = caller.bound()
    headers = {"Authorization": f"DPoP {token}", "DPoP": caller.proof(url, token)}
    body = {"clientPublicKey": pem(session), "requests": [entry(found)]}

    answer = call(url, text_field(1, other.request_token(body)), PROTO, headers)

    assert answer.status in {400, 401}
    assert answer.json["code"] in {"invalid_argument", "unauthenticated"}

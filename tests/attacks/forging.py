"""Tokens with one thing wrong: how each is made from one that is right.

A case has the id of the checklist that it stands for (J1 to J26). It takes a `Template`, whose
token is accepted, and gives text that must not be.
"""

import hashlib
import hmac
import json
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from envelock_formats import jose
from envelock_formats.framing import b64url, from_b64url

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
RSA = rsa.generate_private_key(65537, 2048)
ED = ed25519.Ed25519PrivateKey.generate()
STRANGER = ec.generate_private_key(ec.SECP256R1())
OVERLONG = "1" * 5000


@dataclass(frozen=True)
class Template:
    """The parts of a token that is accepted, and the key that it is signed with."""

    key: ec.EllipticCurvePrivateKey
    header: dict[str, Any]
    claims: dict[str, Any] = field(repr=False)
    listener: str = "http://127.0.0.1:9"  # an address that must never be asked

    def signed(self) -> str:
        """The token as it should be."""
        return self.over(compact(self.header), compact(self.claims))

    def over(self, header: bytes, payload: bytes) -> str:
        """A token with a good signature over any bytes."""
        signing_input = f"{b64url(header)}.{b64url(payload)}"
        return f"{signing_input}.{b64url(es256(self.key, signing_input.encode()))}"

    def headed(self, **changes: Any) -> str:
        """Header members changed; one that is `...` is left out."""
        return replace(self, header=without(self.header | changes)).signed()

    def claiming(self, **changes: Any) -> str:
        """Claims changed; one that is `...` is left out."""
        return replace(self, claims=without(self.claims | changes)).signed()

    @property
    def parts(self) -> list[str]:
        """The three parts of the good token."""
        return self.signed().split(".")

    def resigned(self, signature: bytes, **header: Any) -> str:
        """Another signature over a header with changes."""
        head = b64url(compact(without(self.header | header)))
        return f"{head}.{b64url(compact(self.claims))}.{b64url(signature)}"

    def mac(self, secret: bytes) -> str:
        """An HMAC with a secret that is none."""
        head = b64url(compact(self.header | {"alg": "HS256"}))
        signing_input = f"{head}.{b64url(compact(self.claims))}"
        made = hmac.digest(secret, signing_input.encode(), hashlib.sha256)
        return f"{signing_input}.{b64url(made)}"

    def public(self, encoding: Encoding, form: PublicFormat) -> bytes:
        """The public key in one of its spellings."""
        return self.key.public_key().public_bytes(encoding, form)


Forge = Callable[[Template], str]


@dataclass(frozen=True)
class Case:
    """One thing wrong."""

    number: str
    name: str
    forge: Forge = field(repr=False)
    except_at: frozenset[str] = frozenset()  # places where it is no fault

    def __str__(self) -> str:
        return f"{self.number} {self.name}"


def compact(value: Any) -> bytes:
    """JSON as it stands in tokens."""
    return json.dumps(value, separators=(",", ":")).encode()


def without(members: dict[str, Any]) -> dict[str, Any]:
    """The members that are not `...`."""
    return {name: value for name, value in members.items() if value is not ...}


def es256(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """A raw ES256 signature."""
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _first(template: Template, letter: Callable[[str], str]) -> str:
    head, payload, signature = template.parts
    return ".".join((letter(head), payload, signature))


def _unused_bits(template: Template) -> str:
    """The same bytes under another last letter."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    head, payload, signature = template.parts
    other = alphabet[alphabet.index(signature[-1]) ^ 1]
    return f"{head}.{payload}.{signature[:-1]}{other}"


def _duplicated(template: Template, part: str) -> str:
    header, claims = compact(template.header), compact(template.claims)
    if part == "header":
        header = b'{"alg":"none",' + header[1:]
    elif part == "payload":
        name = next(iter(template.claims))
        claims = compact({name: "other"})[:-1] + b"," + claims[1:]
    else:
        claims = claims[:-1] + b',"cnf":{"jkt":"a","jkt":"b"}}'
    return template.over(header, claims)


def _with_rsa(template: Template) -> str:
    head = b64url(compact(template.header | {"alg": "RS256"}))
    signing_input = f"{head}.{b64url(compact(template.claims))}"
    return f"{signing_input}.{b64url(RSA.sign(signing_input.encode(), PKCS1v15(), SHA256()))}"


def _with_es384(template: Template) -> str:
    head = b64url(compact(template.header | {"alg": "ES384"}))
    signing_input = f"{head}.{b64url(compact(template.claims))}"
    r, s = decode_dss_signature(template.key.sign(signing_input.encode(), ec.ECDSA(SHA384())))
    return f"{signing_input}.{b64url(r.to_bytes(48, 'big') + s.to_bytes(48, 'big'))}"


def _with_ed25519(template: Template) -> str:
    head = b64url(compact(template.header | {"alg": "EdDSA"}))
    signing_input = f"{head}.{b64url(compact(template.claims))}"
    return f"{signing_input}.{b64url(ED.sign(signing_input.encode()))}"


def _der(template: Template) -> str:
    head, payload, _ = template.parts
    return f"{head}.{payload}." + b64url(
        template.key.sign(f"{head}.{payload}".encode(), ec.ECDSA(SHA256()))
    )


def _numbers(r: int, s: int) -> Forge:
    return lambda t: t.resigned(r.to_bytes(32, "big") + s.to_bytes(32, "big"))


def _overlong(template: Template) -> str:
    head, payload, signature = template.parts
    raw = from_b64url(signature)
    return f"{head}.{payload}.{b64url(bytes(1) + raw[:32] + bytes(1) + raw[32:])}"


def _reserialised(template: Template) -> str:
    """Other bytes that parse to the same claims, under the signature of the first ones."""
    head, _, signature = template.parts
    return f"{head}.{b64url(json.dumps(template.claims).encode())}.{signature}"


def _general(template: Template) -> str:
    head, payload, signature = template.parts
    return json.dumps(
        {"payload": payload, "signatures": [{"protected": head, "signature": signature}]}
    )


def _flattened(template: Template) -> str:
    head, payload, signature = template.parts
    return json.dumps({"payload": payload, "protected": head, "signature": signature})


def _jwe(template: Template) -> str:
    header = {"alg": "PBES2-HS256+A128KW", "enc": "A128GCM", "p2s": "AAAA", "p2c": 2**31}
    return ".".join((b64url(compact(template.header | header)), "AA", "AA", "AA", "AA"))


def _zipped(template: Template) -> str:
    packer = zlib.compressobj(wbits=-15)
    payload = packer.compress(bytes(1 << 22)) + packer.flush()
    return template.over(compact(template.header | {"zip": "DEF"}), payload)


def _ssh(template: Template) -> bytes:
    return template.public(Encoding.OpenSSH, PublicFormat.OpenSSH)


def _stolen_name(template: Template) -> str:
    return replace(template, key=STRANGER).signed()


def _flipped(part: int) -> Forge:
    def forge(template: Template) -> str:
        parts = [bytearray(from_b64url(text)) for text in template.parts]
        parts[part][len(parts[part]) // 2] ^= 1
        return ".".join(b64url(bytes(raw)) for raw in parts)

    return forge


_SPKI = PublicFormat.SubjectPublicKeyInfo
_NAMES_KEYS = frozenset({"request", "proof"})
_TYPED = frozenset({"request"})


def _no_kid(case: Case) -> Case:
    """A `kid` chooses nothing where the key is known otherwise."""
    return replace(case, except_at=_NAMES_KEYS)


CASES = [
    # J1, no signature
    *(Case("J1", f"alg {alg!r}", lambda t, alg=alg: t.headed(alg=alg))
      for alg in ("none", "None", "nOnE", "NONE", "", "es256", "ES256 ", 1, True, None, ["ES256"],
                  {"ES256": 1}, ...)),
    *(Case("J1", f"alg {alg!r} unsigned",
           lambda t, alg=alg: t.headed(alg=alg).rpartition(".")[0] + ".")
      for alg in ("none", "nOnE", "ES256")),
    # J2, a public key as a secret
    Case("J2", "HMAC under PEM", lambda t: t.mac(t.public(Encoding.PEM, _SPKI))),
    Case("J2", "HMAC under DER", lambda t: t.mac(t.public(Encoding.DER, _SPKI))),
    Case("J2", "HMAC under JWK", lambda t: t.mac(compact(jose.public_jwk(t.key.public_key())))),
    Case("J2", "HMAC under ssh", lambda t: t.mac(_ssh(t))),
    Case("J2", "HMAC under nothing", lambda t: t.mac(b"")),
    # J3, another algorithm than the key's
    Case("J3", "RS256", _with_rsa),
    Case("J3", "ES384 under P-256", _with_es384),
    Case("J3", "EdDSA", _with_ed25519),
    *(Case("J3", f"labelled {alg}", lambda t, alg=alg: t.headed(alg=alg))
      for alg in ("RS256", "ES384", "ES512", "PS256", "EdDSA", "ES256K", "HS256")),
    # J4, the token's own key says what is allowed
    Case("J4", "a key with alg none", lambda t: t.headed(
        alg="none", jwk=jose.public_jwk(t.key.public_key()) | {"alg": "none"})),
    Case("J4", "a key with alg HS256", lambda t: replace(t, header=t.header | {
        "jwk": {"kty": "oct", "k": b64url(b"secret"), "alg": "HS256"}}).mac(b"secret")),
    # J6, names of keys
    *(_no_kid(Case("J6", f"kid {str(kid)[:20]!r}", lambda t, kid=kid: t.headed(kid=kid)))
      for kid in ("unknown", "../../../../etc/passwd", "x' or '1'='1", "a\0b", "", " ", 0, None,
                  ["k"], {"k": 1}, True, "x" * 129, "x" * 10_000, "https://evil.example/k")),
    # J7, keys by address
    Case("J7", "jwk", lambda t: replace(t, key=STRANGER).headed(
        jwk=jose.public_jwk(STRANGER.public_key())), frozenset({"proof"})),
    *(Case("J7", name, lambda t, name=name: t.headed(**{name: f"{t.listener}/{name}"}))
      for name in ("jku", "x5u")),
    Case("J7", "x5c", lambda t: t.headed(x5c=["MIIB"])),
    Case("J7", "x5t", lambda t: t.headed(x5t="AAAA")),
    # J8, what must be understood
    *(Case("J8", f"crit {crit!r}", lambda t, crit=crit: t.headed(crit=crit))
      for crit in ([], ["exp"], ["alg"], ["b64"], "exp", None)),
    Case("J8", "b64 false", lambda t: t.headed(b64=False, crit=["b64"])),
    Case("J8", "b64 alone", lambda t: t.headed(b64=True)),
    # J9, names that stand twice
    *(Case("J9", f"twice in {part}", lambda t, part=part: _duplicated(t, part))
      for part in ("header", "payload", "cnf")),
    # J10, one spelling
    Case("J10", "padding", lambda t: t.signed() + "="),
    Case("J10", "padded header", lambda t: _first(t, lambda head: head + "=")),
    Case("J10", "leading blank", lambda t: " " + t.signed()),
    Case("J10", "inner blank", lambda t: t.signed().replace(".", ". ", 1)),
    Case("J10", "tab", lambda t: t.signed().replace(".", ".\t", 1)),
    Case("J10", "other alphabet", lambda t: _first(t, lambda head: "+/" + head[2:])),
    Case("J10", "unused bits", _unused_bits),
    Case("J10", "extra dot", lambda t: t.signed() + "."),
    Case("J10", "leading dot", lambda t: "." + t.signed()),
    Case("J10", "two parts", lambda t: t.signed().rpartition(".")[0]),
    Case("J10", "four parts", lambda t: t.signed() + ".AA"),
    Case("J10", "detached", lambda t: "{0}..{2}".format(*t.parts)),
    Case("J10", "flattened JSON", _flattened),
    Case("J10", "general JSON", _general),
    Case("J10", "byte order mark", lambda t: t.over(
        b"\xef\xbb\xbf" + compact(t.header), compact(t.claims))),
    Case("J10", "bare words", lambda t: t.over(
        compact(t.header), compact(t.claims)[:-1] + b',"x":NaN}')),
    Case("J10", "no object", lambda t: t.over(compact(t.header), b"[]")),
    Case("J10", "header no object", lambda t: t.over(b'"ES256"', compact(t.claims))),
    # J11, one encoding of a signature
    Case("J11", "r = s = 0", _numbers(0, 0)),
    Case("J11", "r = 0", _numbers(0, 1)),
    Case("J11", "r = s = n", _numbers(ORDER, ORDER)),
    Case("J11", "r = s = 1", _numbers(1, 1)),
    Case("J11", "r = s = n - 1", _numbers(ORDER - 1, ORDER - 1)),
    Case("J11", "s = 1 + n", _numbers(1, ORDER + 1)),
    Case("J11", "all ones", lambda t: t.resigned(b"\xff" * 64)),
    Case("J11", "DER", _der),
    Case("J11", "over-long", _overlong),
    Case("J11", "empty", lambda t: t.resigned(b"")),
    Case("J11", "of somebody else", _stolen_name, frozenset({"proof"})),
    *(Case("J11", f"bit of part {part}", _flipped(part)) for part in range(3)),
    # J14, other bytes that parse alike
    Case("J14", "written anew", _reserialised),
    # J24, types
    *(Case("J24", f"typ {typ!r}", lambda t, typ=typ: t.headed(typ=typ),
           _TYPED if typ in ("JWT", ...) else frozenset())
      for typ in ("JWT", "jwt", "application/jwt", "x", "", 1, None, ["JWT"], ...)),
    # J25, nesting, encryption, compression
    Case("J25", "nested", lambda t: replace(t, claims={"jwt": t.signed()}).signed()),
    Case("J25", "cty", lambda t: t.headed(cty="JWT")),
    Case("J25", "JWE with 2^31 rounds", _jwe),
    Case("J25", "zip bomb", _zipped),
    # J26, size and depth
    Case("J26", "deep claims", lambda t: t.over(
        compact(t.header), b'{"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}")),
    Case("J26", "very deep claims", lambda t: t.over(
        compact(t.header), b'{"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}")),
    Case("J26", "deep header", lambda t: t.over(
        b'{"x":' + b"[" * 1_500 + b"]" * 1_500 + b"}", compact(t.claims))),
    Case("J26", "too long", lambda t: t.claiming(pad="x" * 60_000), frozenset({"request"})),
    Case("J26", "number of 5,000 digits", lambda t: t.over(
        compact(t.header), compact(t.claims)[:-1] + f',"x":{OVERLONG}}}'.encode())),
    Case("J26", "number of a float that is none", lambda t: t.over(
        compact(t.header), compact(t.claims)[:-1] + b',"x":1e400}')),
]  # fmt: skip


def times(*names: str) -> list[Case]:
    """J18, J19, J20: what no time may be, for each claim that is one."""
    now = int(time.time())
    wrong: dict[str, list[Any]] = {
        "exp": [
            ...,
            now - 120,
            str(now + 60),
            now + 60.5,
            True,
            -1,
            2**63,
            2**64,
            None,
            [now + 60],
        ],
        "iat": [..., now + 50_000, str(now), now + 0.5, True, None],
        "nbf": [now + 50_000, str(now), True],
    }
    cases = [
        Case("J18" if name == "exp" else "J19", f"{name} {_shown(value)}",
             lambda t, name=name, value=value: t.claiming(**{name: value}))
        for name in names
        for value in wrong[name]
    ]  # fmt: skip
    if "exp" in names:
        cases += [
            Case("J18", f"exp {raw[:10]!r}", lambda t, raw=raw: raw_claim(t, "exp", raw))
            for raw in ("1e400", OVERLONG, "1e10", f"{now + 30}.0")
        ]
        cases.append(Case("J20", "lives too long", lambda t: t.claiming(exp=now + 100_000)))
    return cases


def raw_claim(template: Template, name: str, text: str) -> str:
    """A claim spelled as JSON text of one's own."""
    claims = compact(without(template.claims | {name: ...}))
    return template.over(compact(template.header), claims[:-1] + f',"{name}":{text}}}'.encode())


def absent(number: str, *names: str) -> list[Case]:
    """Claims that must be there."""
    return [
        Case(number, f"{name} absent", lambda t, name=name: t.claiming(**{name: ...}))
        for name in names
    ]


def other(number: str, name: str, *values: Any) -> list[Case]:
    """Claims that must be another."""
    return [
        Case(number, f"{name} {_shown(value)}",
             lambda t, value=value: t.claiming(**{name: value}))
        for value in values
    ]  # fmt: skip


def _shown(value: Any) -> str:
    return "absent" if value is ... else repr(value)[:40]

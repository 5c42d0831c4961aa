"""Request tokens: what a name stands for."""

from cryptography.hazmat.primitives.asymmetric import ec

from envelock_formats import jose
from envelock_formats.framing import b64url
from envelock_formats.wire import read_request_token

NOW = 1_900_000_000


def signed(key: ec.EllipticCurvePrivateKey, body: str = "{}") -> str:
    """A request token as clients write it."""
    claims = {"requestBody": body, "iat": NOW, "exp": NOW + 60}
    return jose.sign(key, claims, typ="JWT")


def test_a_name_covers_what_was_signed_and_not_the_signature():
    """ECDSA has many signatures for one text; each must spend the same name, or it spends none."""
    key = ec.generate_private_key(ec.SECP256R1())
    first, second = signed(key), signed(key)

    names = {read_request_token(text, key.public_key(), NOW).name for text in (first, second)}

    assert first != second
    assert len(names) == 1


def test_a_signature_that_proves_nothing_gives_no_new_name():
    """The signature under an unbound token is not verified; other bytes there name nothing new."""
    token = signed(ec.generate_private_key(ec.SECP256R1()))
    other = f"{token.rpartition('.')[0]}.{b64url(bytes(64))}"

    names = {read_request_token(text, None, NOW).name for text in (token, other)}

    assert len(names) == 1


def test_another_body_is_another_name():
    """What is asked is in the name."""
    key = ec.generate_private_key(ec.SECP256R1())
    texts = (signed(key), signed(key, '{"x":1}'))

    names = {read_request_token(text, key.public_key(), NOW).name for text in texts}

    assert len(names) == 2

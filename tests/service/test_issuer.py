"""The development issuer: tokens for known people, on one machine only."""

import base64
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession
from service.world import SECRET, Authority, Holder, running_authority

from envelock_service.issuer import require_development
from envelock_service.settings import SettingsError


@pytest.fixture
async def authority() -> AsyncIterator[Authority]:
    """An issuer, running."""
    async with running_authority() as found:
        yield found


async def ask(authority: Authority, form: dict[str, str], **headers: str):
    """POST to the token endpoint."""
    url = f"{authority.url}/token"
    async with ClientSession() as session, session.post(url, data=form, headers=headers) as answer:
        return answer.status, await answer.json()


def basic(client_id: str, secret: str) -> str:
    """A Basic header."""
    return "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()


FORM = {"grant_type": "client_credentials"}


async def test_gives_tokens_by_basic_and_by_form(authority: Authority):
    """Both ways of RFC 6749 work, and the tokens verify."""
    by_form = FORM | {"client_id": "doctor", "client_secret": SECRET}
    answers = [
        await ask(authority, FORM, Authorization=basic("doctor", SECRET)),
        await ask(authority, by_form),
    ]

    for status, answer in answers:
        token = await authority.tokens.verify(answer["access_token"])
        assert (status, token.caller.subject, answer["token_type"]) == (200, "doctor", "Bearer")


async def test_binds_a_token_to_the_key_of_a_proof(authority: Authority):
    """With a proof the token carries its thumbprint, and says so."""
    holder = Holder()
    proof = holder.proof(f"{authority.url}/token", "", ath=...)
    status, answer = await ask(authority, FORM, Authorization=basic("doctor", SECRET), DPoP=proof)
    token = await authority.tokens.verify(answer["access_token"])

    assert (status, answer["token_type"]) == (200, "DPoP")
    assert token.caller.jkt == holder.jkt


@pytest.mark.parametrize(
    ("form", "headers", "code"),
    [
        (FORM, {}, "invalid_client"),
        (FORM, {"Authorization": basic("doctor", "wrong")}, "invalid_client"),
        (FORM, {"Authorization": basic("nobody", SECRET)}, "invalid_client"),
        (FORM, {"Authorization": basic("doctor", "")}, "invalid_client"),
        (FORM, {"Authorization": "Basic !!!"}, "invalid_client"),
        (FORM, {"Authorization": "Bearer x"}, "invalid_client"),
        (
            {"grant_type": "password"},
            {"Authorization": basic("doctor", SECRET)},
            "unsupported_grant_type",
        ),
        (FORM, {"Authorization": basic("doctor", SECRET), "DPoP": "x"}, "invalid_dpop_proof"),
    ],
)
async def test_refuses_everybody_else(authority: Authority, form, headers, code):
    """Wrong secrets, unknown clients, other grants and bad proofs get no token."""
    status, answer = await ask(authority, form, **headers)

    assert status in {400, 401}
    assert answer == {"error": code}


async def test_publishes_where_its_keys_are(authority: Authority):
    """Discovery names the issuer, its keys and its token endpoint."""
    url = f"{authority.url}/.well-known/openid-configuration"
    async with ClientSession() as session, session.get(url) as answer:
        document = await answer.json()

    assert document["issuer"] == authority.url
    assert document["jwks_uri"].startswith(authority.url)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])  # noqa: S104 refused here
def test_refuses_to_bind_beyond_loopback(host: str):
    """It is for one machine."""
    with pytest.raises(SettingsError, match="loopback"):
        require_development("development", host)


def test_refuses_production():
    """It believes whoever holds a file."""
    with pytest.raises(SettingsError, match="production"):
        require_development("production", "127.0.0.1")

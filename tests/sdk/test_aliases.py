"""Addresses of servers that the profile's own server has taken over."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from envelock.errors import KasNotAllowedError
from envelock.exchange import Call, Reply, drive
from envelock.opening import groups_of
from envelock.profile import Profile, ProfileValues
from envelock.session import Session
from envelock_formats.tdf.keyaccess import KeyAccess

OWN, OLD, OTHER = "https://kas.example:443", "https://old.example:443", "https://other.example:443"


@dataclass(frozen=True)
class Sealed:
    """The key access objects of a file; nothing else is looked at before anybody is asked."""

    key_access: tuple[KeyAccess, ...]


@dataclass
class Told:
    """What servers say of themselves, and who was asked."""

    aliases: Mapping[str, list[str]]

    def __post_init__(self) -> None:
        self.asked: list[str] = []

    def send(self, call: Call) -> Reply:
        self.asked.append(call.url)
        base = call.url.removesuffix("/.well-known/opentdf-configuration")
        ours = {"kas_id": "k", "url": base, "aliases": self.aliases.get(base, [])}
        return Reply(200, {}, json.dumps({"envelock": ours}).encode())


def session(url: str, *kas: str) -> Session:
    """Somebody at one server, who may also ask those of *kas*."""
    values = ProfileValues(url=url, kas=kas)
    return Session(Profile(values, "me"), brought=None, ledger_key="", entropy=bytes)


def asked(told: Told, asker: Session, *urls: str) -> list[str]:
    """The addresses that a file's shares are asked for at."""
    keys = tuple(
        KeyAccess("wrapped", url, "", "", sid=str(number)) for number, url in enumerate(urls)
    )
    groups = drive(groups_of(asker, Sealed(keys)), told.send, lambda _: None)
    return [group.server.url for group in groups]


@pytest.mark.parametrize("named", ["https://old.example/kas", "https://old.example:443/other"])
def test_an_alias_leads_to_the_server_that_claims_it(named: str):
    """Whatever path a file gives; and nothing is sent to the address itself."""
    told = Told({OWN: ["https://old.example/kas"]})

    assert asked(told, session(OWN), named) == [OWN]
    assert {url.partition("/.well-known")[0] for url in told.asked} == {OWN}


def test_shares_under_both_addresses_are_asked_for_at_once():
    """A file may name the server by its address and by an older one."""
    told = Told({OWN: [OLD]})

    assert asked(told, session(OWN), f"{OWN}/kas", f"{OLD}/kas") == [OWN]


def test_no_alias_takes_the_place_of_a_server_that_the_profile_names():
    """What the user listed goes where it says."""
    told = Told({OWN: [OTHER]})

    assert asked(told, session(OWN, OTHER), OTHER) == [OTHER]


@pytest.mark.parametrize("alias", ["old.example", "ftp://old.example", "https://x@old.example", ""])
def test_an_alias_that_is_no_address_is_none(alias: str):
    """It is passed over, and the rest counts."""
    told = Told({OWN: [alias, OTHER]})

    assert asked(told, session(OWN), OTHER) == [OWN]
    with pytest.raises(KasNotAllowedError):
        asked(told, session(OWN), OLD)


def test_only_the_profiles_own_server_has_aliases():
    """Another that may be asked cannot draw shares to itself."""
    told = Told({OTHER: [OLD]})
    me = session(OWN).with_peers([session(OTHER)])

    with pytest.raises(KasNotAllowedError):
        asked(told, me, OLD)

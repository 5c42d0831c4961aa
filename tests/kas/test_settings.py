"""What the settings of a KAS refuse, and what they ask of its custody."""

from pathlib import Path

import msgspec
import pytest

from envelock_kas.custody.local import LocalCustody
from envelock_kas.settings import KasSettings, require_algorithms
from envelock_service.settings import SettingsError


class Old(LocalCustody):
    """A custody that holds no post-quantum keys."""

    name = "old"
    algorithms = ("aes:256", "ec:secp256r1", "rsa:2048")


@pytest.mark.parametrize(
    "aliases",
    [
        ["ftp://old.example"],
        ["old.example"],
        ["http://user@old.example"],
        ["http://old.example/kas", "http://old.example/kas"],
        ["http://127.0.0.1:8080"],
    ],
)
def test_an_alias_is_the_address_of_another_server(aliases: list[str]):
    """An http(s) URL, once, and not the one that this KAS has."""
    with pytest.raises(msgspec.ValidationError, match="kas_aliases"):
        msgspec.convert({"kas_aliases": aliases}, KasSettings)


def test_first_use_makes_only_keys_that_the_custody_holds(tmp_path: Path):
    """A server whose settings ask for others does not start."""
    settings = msgspec.convert({"algorithms": ["ec:secp256r1", "hpqt:xwing"]}, KasSettings)
    require_algorithms(settings, LocalCustody(tmp_path, bytes))

    with pytest.raises(SettingsError, match="holds no hpqt:xwing keys"):
        require_algorithms(settings, Old(tmp_path, bytes))

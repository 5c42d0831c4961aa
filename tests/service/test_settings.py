"""Settings: what is unknown refuses to start."""

from pathlib import Path

import msgspec
import pytest

from envelock_service.settings import SettingsError, section


class Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A section of a test."""

    listen: str = "127.0.0.1:1"
    key_file: str = "key.pem"
    count: int = 1


def written(folder: Path, text: str) -> Path:
    """A settings file."""
    path = folder / "envelock.toml"
    path.write_text(text)
    return path


def test_reads_a_section_and_fills_in_defaults(tmp_path: Path):
    """What is silent has its default."""
    found = section(written(tmp_path, '[kas]\nlisten = "x"\n'), "kas", Shape)

    assert found == Shape(listen="x")


@pytest.mark.parametrize(
    "text",
    [
        "[kas]\nlisen = 'x'\n",
        "[kass]\nlisten = 'x'\n",
        "listen = 'x'\n",
        "[kas]\ncount = '1'\n",
        "[kas]\ncount = 1.5\n",
        "kas = 3\n",
        "[kas",
    ],
)
def test_refuses_what_it_does_not_know(tmp_path: Path, text: str):
    """A misspelt key or section, another type, a file that is not TOML: no start."""
    with pytest.raises(SettingsError, match=r"envelock\.toml"):
        section(written(tmp_path, text), "kas", Shape)


def test_the_environment_names_secret_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Paths of secret files may come from the environment, nothing else."""
    monkeypatch.setenv("ENVELOCK_KAS_KEY_FILE", "/run/secrets/key")
    monkeypatch.setenv("ENVELOCK_KAS_LISTEN", "0.0.0.0:1")
    found = section(written(tmp_path, ""), "kas", Shape)

    assert found == Shape(key_file="/run/secrets/key")


def test_a_missing_file_says_what_to_do(tmp_path: Path):
    """The message names the file, the hint the next step."""
    with pytest.raises(SettingsError) as caught:
        section(tmp_path / "envelock.toml", "kas", Shape)

    assert caught.value.hint is not None

"""The consumer's errors: one class for each exit code."""

import pickle

import pytest

from envelock import errors
from envelock_formats.errors import FormatError, IntegrityError, UnsupportedAlgorithmError

CLASSES = [errors.EnvelockError, *errors.EnvelockError.__subclasses__(),
           *errors.SealedFileError.__subclasses__()]  # fmt: skip


@pytest.mark.parametrize("kind", CLASSES)
def test_errors_survive_pickling(kind):
    """Message, code, hint, request id and delay come back whole."""
    made = kind("words", hint="do this", request_id="r-1")
    if kind is errors.UnavailableError:
        made = kind("words", hint="do this", request_id="r-1", retry_after=2.5)

    found = pickle.loads(pickle.dumps(made))  # noqa: S301 our own bytes

    assert type(found) is kind
    assert str(found) == "words"
    assert vars(found) == vars(made)


def test_every_class_has_its_exit_code():
    """The codes that the command line promises."""
    assert {kind.__name__: kind.exit_code for kind in CLASSES} == {
        "EnvelockError": 1, "ConfigError": 2, "NotAuthenticatedError": 3, "DeniedError": 3,
        "SealedFileError": 4, "FormatError": 4, "TamperedError": 4, "KasNotAllowedError": 4,
        "UnavailableError": 5, "ReceiptError": 6,
    }  # fmt: skip
    assert len({kind.default_code for kind in CLASSES}) == len(CLASSES)


def test_format_errors_become_the_consumers():
    """What the formats raise keeps its words and gets a class."""
    for raised, kind, code in (
        (IntegrityError("tampered: x"), errors.TamperedError, "tampered"),
        (UnsupportedAlgorithmError("unsupported x"), errors.FormatError, "unsupported_algorithm"),
        (FormatError("manifest: x"), errors.FormatError, "format"),
    ):
        found = errors.sealed_file_error(raised)

        assert (type(found), str(found), found.code) == (kind, str(raised), code)

"""Signed notes, verifier keys and checkpoints: one spelling, and nothing else accepted."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from envelock_ledger.checkpoint import Checkpoint, open_checkpoint
from envelock_ledger.errors import ProofError
from envelock_ledger.merkle import EMPTY_ROOT
from envelock_ledger.note import Note, Signature, Signer, VerifierKey

SIGNER = Signer("example.com/log", Ed25519PrivateKey.from_private_bytes(bytes(32)))
OTHER = Signer("example.com/log", Ed25519PrivateKey.from_private_bytes(bytes([1] * 32)))
KEY = SIGNER.verifier
ROOT = bytes(range(32))
CHECKPOINT = Checkpoint(KEY.name, 5, ROOT)

# The example of C2SP signed-note.
EXAMPLE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE = (
    "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2"
    "ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
ROOT_TEXT = base64.b64encode(ROOT).decode()


def line(signer: Signer, text: str) -> str:
    """The signature line of *signer* under *text*."""
    return str(Note.parse(signer.sign(text)).signatures[0])


def test_a_signed_checkpoint_opens():
    """What was signed is what is read."""
    assert open_checkpoint(CHECKPOINT.sign(SIGNER), KEY) == CHECKPOINT


@given(
    origin=st.text(
        st.characters(codec="ascii", exclude_characters="+", min_codepoint=33, max_codepoint=126),
        min_size=1,
    ),
    size=st.integers(1, 2**53 - 1),
    root=st.binary(min_size=32, max_size=32),
)
def test_checkpoints_have_one_spelling(origin, size, root):
    """A checkpoint is read as it was written."""
    checkpoint = Checkpoint(origin, size, root)

    assert Checkpoint.parse(str(checkpoint)) == checkpoint


@given(st.text(max_size=200))
def test_nothing_else_is_a_checkpoint(text):
    """Whatever is accepted is spelled as it would be written."""
    try:
        checkpoint = Checkpoint.parse(text)
    except ProofError:
        return
    assert str(checkpoint) == text


@pytest.mark.parametrize(
    "text",
    [
        f"o\n+5\n{ROOT_TEXT}\n",
        f"o\n 5\n{ROOT_TEXT}\n",
        f"o\n5 \n{ROOT_TEXT}\n",
        f"o\n1_000\n{ROOT_TEXT}\n",
        f"o\n\u0665\n{ROOT_TEXT}\n",
        f"o\n05\n{ROOT_TEXT}\n",
        f"o\n-1\n{ROOT_TEXT}\n",
        f"o\n9007199254740992\n{ROOT_TEXT}\n",
        f"o\n5\n{ROOT_TEXT[:-1]}\n",
        f"o\n5\n{ROOT_TEXT.replace('=', '')}\n",
        f"o\n5\n{ROOT_TEXT[:-2]}9=\n",
        f"o\n5\n{ROOT_TEXT}",
        f"o\r\n5\n{ROOT_TEXT}\n",
        f"\n5\n{ROOT_TEXT}\n",
        f"o\n5\n{ROOT_TEXT}\n\n",
        f"o\n5\n{ROOT_TEXT}\nextension\n",
        f"o\n5\n{base64.b64encode(bytes(31)).decode()}\n",
        f"o\n0\n{ROOT_TEXT}\n",
        "",
        "\n\n\n",
    ],
)
def test_refuses_every_other_spelling_of_a_checkpoint(text):
    """Signs, spaces, separators, foreign digits, padding, extension lines."""
    with pytest.raises(ProofError):
        Checkpoint.parse(text)


def test_keys_have_one_spelling():
    """A verifier key is read as it was written, and the published example is one."""
    assert VerifierKey.parse(str(KEY)) == KEY
    assert str(VerifierKey.parse(EXAMPLE_KEY)) == EXAMPLE_KEY


def test_the_example_of_the_specification_verifies():
    """The note that C2SP publishes verifies under the key that it publishes."""
    text = Note.parse(EXAMPLE).verify(VerifierKey.parse(EXAMPLE_KEY))

    assert text == "This is an example message.\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        str(KEY).replace("example", "exbmple"),
        str(KEY).upper(),
        str(KEY) + "\n",
        str(KEY) + "=",
        f"a b{str(KEY)[15:]}",
        f"{KEY.name}+{KEY.key_id.hex()}+{base64.b64encode(bytes([2]) + KEY.public).decode()}",
        f"{KEY.name}+{KEY.key_id.hex()}+{base64.b64encode(bytes([1]) + KEY.public[1:]).decode()}",
    ],
)
def test_refuses_a_key_that_is_not_one(text):
    """Another name, spelling, algorithm or length, or an id that does not belong to the key."""
    with pytest.raises(ProofError):
        VerifierKey.parse(text)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda note: note[:-1],
        lambda note: note.replace("\n\n", "\n"),
        lambda note: note.replace("\n", "\r\n"),
        lambda note: note + "\n",
        lambda note: note + "tail",
        lambda note: note.replace("— ", "- "),
        lambda note: note.replace("— ", "—  "),
        lambda note: note.replace(" ", "\u00a0", 1),
        lambda note: "\x00" + note,
        lambda note: note.replace("5\n", "6\n", 1),
        lambda note: note.replace("A", "B", 1),
        lambda _: "",
        lambda _: "\n\n\n",
        lambda note: note + line(SIGNER, "x\n") * 100,
        lambda _: "a" * (1 << 20) + "\n\n— a AAAAAAA=\n",
    ],
)
def test_refuses_a_spoilt_note(spoil):
    """One byte more, less or different, and the note is none or does not verify."""
    with pytest.raises(ProofError):
        open_checkpoint(spoil(CHECKPOINT.sign(SIGNER)), KEY)


def test_the_last_empty_line_ends_the_text():
    """Text may contain an empty line; what follows the last one are signatures."""
    note = SIGNER.sign("a\n\nb\n")

    assert Note.parse(note).verify(KEY) == "a\n\nb\n"
    with pytest.raises(ProofError):
        open_checkpoint(note, KEY)


def test_signatures_of_strangers_are_ignored():
    """A note may carry many signatures; those of unknown keys count for nothing."""
    strangers = "".join(
        str(Signature(f"witness{number}", bytes([number] * 4), bytes(72))) for number in range(16)
    )
    note = CHECKPOINT.sign(SIGNER) + strangers

    assert open_checkpoint(note, KEY) == CHECKPOINT


def test_refuses_a_note_that_only_strangers_signed():
    """Without a signature by the known key a note is worth nothing."""
    with pytest.raises(ProofError, match="not signed by"):
        open_checkpoint(CHECKPOINT.sign(OTHER), KEY)


def test_one_bad_signature_of_a_known_key_refuses_the_note():
    """A line that claims the known key and does not verify outweighs one that does."""
    forged = Signature(KEY.name, KEY.key_id, bytes(64))

    with pytest.raises(ProofError, match="does not verify"):
        open_checkpoint(CHECKPOINT.sign(SIGNER) + str(forged), KEY)


def test_a_key_id_that_collides_does_not_help():
    """The name and the id of a key do not sign for it."""
    signature = Note.parse(CHECKPOINT.sign(OTHER)).signatures[0]
    claimed = Signature(KEY.name, KEY.key_id, signature.raw)

    with pytest.raises(ProofError, match="does not verify"):
        open_checkpoint(str(Note(str(CHECKPOINT), (claimed,))), KEY)


def test_refuses_the_checkpoint_of_another_log():
    """The origin must be the name of the key, although the signature is good."""
    foreign = Checkpoint("example.com/other", 5, ROOT)

    with pytest.raises(ProofError, match=r"expected 'example.com/log'"):
        open_checkpoint(foreign.sign(SIGNER), KEY)


def test_the_empty_log_has_a_checkpoint():
    """Size 0 goes with the root of nothing."""
    empty = Checkpoint(KEY.name, 0, EMPTY_ROOT)

    assert open_checkpoint(empty.sign(SIGNER), KEY) == empty


def test_equal_checkpoints_are_signed_equally():
    """Signing the same size again gives the same note, never a second one."""
    assert CHECKPOINT.sign(SIGNER) == CHECKPOINT.sign(SIGNER)

"""What a wrap by a key encapsulation mechanism looks like: its algorithms, types and envelope.

| algorithm | type of key access | ciphertext |
|---|---|---|
| `mlkem:768` | `mlkem-wrapped` | 1088 |
| `mlkem:1024` | `mlkem-wrapped` | 1568 |
| `hpqt:xwing` | `hybrid-wrapped` | 1088 + 32, ephemeral X25519 key |
| `hpqt:secp256r1-mlkem768` | `hybrid-wrapped` | 1088 + 65, ephemeral point of P-256 |
| `hpqt:secp384r1-mlkem1024` | `hybrid-wrapped` | 1568 + 97, ephemeral point of P-384 |

The wrapped key is DER: `SEQUENCE { [0] IMPLICIT OCTET STRING ciphertext, [1] IMPLICIT OCTET STRING
sealed share }`. The length of the ciphertext tells algorithms of one type apart.
"""

from collections.abc import Mapping
from typing import Final

from envelock_formats import der
from envelock_formats.errors import UnsupportedAlgorithmError

MLKEM_768: Final = "mlkem:768"
MLKEM_1024: Final = "mlkem:1024"
XWING: Final = "hpqt:xwing"
P256_MLKEM_768: Final = "hpqt:secp256r1-mlkem768"
P384_MLKEM_1024: Final = "hpqt:secp384r1-mlkem1024"
MLKEM_WRAPPED: Final = "mlkem-wrapped"
HYBRID_WRAPPED: Final = "hybrid-wrapped"

KEM_TYPES: Mapping[str, str] = {
    MLKEM_768: MLKEM_WRAPPED,
    MLKEM_1024: MLKEM_WRAPPED,
    XWING: HYBRID_WRAPPED,
    P256_MLKEM_768: HYBRID_WRAPPED,
    P384_MLKEM_1024: HYBRID_WRAPPED,
}
CIPHERTEXT_SIZES: Mapping[str, int] = {
    MLKEM_768: 1088,
    MLKEM_1024: 1568,
    XWING: 1088 + 32,
    P256_MLKEM_768: 1088 + 65,
    P384_MLKEM_1024: 1568 + 97,
}
_BY_SIZE = {(KEM_TYPES[name], size): name for name, size in CIPHERTEXT_SIZES.items()}
_CIPHERTEXT = 0x80  # context class, number 0
_SEALED = 0x81


def write_envelope(ciphertext: bytes, sealed: bytes) -> bytes:
    """Join the ciphertext of a KEM and the share that is sealed under its secret."""
    return der.write(der.SEQUENCE, der.write(_CIPHERTEXT, ciphertext), der.write(_SEALED, sealed))


def read_envelope(wrapped: bytes) -> tuple[bytes, bytes]:
    """Undo `write_envelope`: ciphertext and sealed share.

    Raises:
        DerError: Not the one encoding of an envelope.
    """
    ciphertext, rest = der.read(der.read_whole(wrapped, der.SEQUENCE), _CIPHERTEXT)
    return ciphertext, der.read_whole(rest, _SEALED)


def kem_of_envelope(kind: str, wrapped: bytes) -> str:
    """The algorithm of a wrapped key in a key access object of type *kind*.

    Raises:
        UnsupportedAlgorithmError: No algorithm of that type has such a ciphertext.
        DerError: Not an envelope.
    """
    found = _BY_SIZE.get((kind, len(read_envelope(wrapped)[0])))
    if found is None:
        raise UnsupportedAlgorithmError(f"unsupported kind of wrap {kind[:40]!r}")
    return found

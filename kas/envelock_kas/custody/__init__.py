"""Where a KEK lives: one Protocol, one file for each custody, one contract suite for all.

Algorithms are `aes:256` for online wraps, and for offline ones EC on P-256, P-384 and P-521, RSA of
2048 and 4096 bits, and where the custody has them ML-KEM and its hybrids. What leaves the boundary:
AES-GCM and RSA-OAEP give the data key; EC gives the ECDH secret and a KEM the shared secret, and
what follows runs in our process.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric import ec

from envelock_formats.envelope import KEM_TYPES
from envelock_formats.privatekey import PrivateKey
from envelock_formats.publickey import PublicKey
from envelock_kas.errors import RefusedKeyError

AES: Final = "aes:256"
EC: Final = "ec:secp256r1"
RSA: Final = "rsa:2048"
EC_ALGORITHMS = (EC, "ec:secp384r1", "ec:secp521r1")
RSA_ALGORITHMS = (RSA, "rsa:4096")
KEM_ALGORITHMS = tuple(KEM_TYPES)
CLASSIC = (AES, *EC_ALGORITHMS, *RSA_ALGORITHMS)  # what every custody holds
ALGORITHMS = (*CLASSIC, *KEM_ALGORITHMS)


@dataclass(frozen=True, slots=True)
class Made:
    """A key that was just made: how the custody names it, and its public half if it has one."""

    algorithm: str
    handle: str
    public: PublicKey | None


def require_held(custody: "Custody", algorithms: Sequence[str]) -> None:
    """Refuse kinds of keys that *custody* does not hold.

    Raises:
        RefusedKeyError: The first of them.
    """
    for algorithm in algorithms:
        if algorithm not in custody.algorithms:
            raise RefusedKeyError(f"the custody {custody.name!r} holds no {algorithm} keys")


def handle_of(label: str, algorithm: str) -> str:
    """What the key for *algorithm* under the key id *label* is called in a custody."""
    return f"{label}#{algorithm.replace(':', '-')}"


class Custody(Protocol):
    """Keeps KEKs and performs operations with them; a KEK never leaves it.

    Every method raises `CustodyError` when the custody does not answer within its deadline: nothing
    is then known about the key. A key that does not exist raises `CustodyError` too. Wrong
    ciphertexts, contexts and keys raise `envelock_formats.wrap.UnwrapError`, one error for all.
    """

    name: str
    algorithms: Sequence[str]  # of the keys that it holds

    async def make(self, label: str, algorithms: Sequence[str]) -> Sequence[Made]:
        """Make one key for each algorithm, durably, under the key id *label*.

        Raises:
            RefusedKeyError: One is of a kind that it does not hold; none was made.
        """
        ...

    async def adopt(self, label: str, key: PrivateKey) -> Made:
        """Take over a key that was made elsewhere, durably, under the key id *label*.

        What the custody keeps of it is as protected as a key made here; that it was never outside
        nobody can say.

        Raises:
            RefusedKeyError: It holds no such keys, or takes over none; nothing is kept.
        """
        ...

    async def wrap(self, handle: str, dek: bytes, aad: bytes) -> bytes:
        """AES-256-GCM: returns nonce 12, ciphertext, tag 16."""
        ...

    async def unwrap(self, handle: str, wrapped: bytes, aad: bytes) -> bytes:
        """Undo `wrap`; *aad* must be the same."""
        ...

    async def decrypt(self, handle: str, wrapped: bytes) -> bytes:
        """RSA-OAEP with SHA-1 and MGF1-SHA-1: returns the 32-byte share."""
        ...

    async def agree(self, handle: str, peer: ec.EllipticCurvePublicKey) -> bytes:
        """ECDH: returns the x-coordinate, big-endian, as long as the curve's field."""
        ...

    async def decapsulate(self, handle: str, ciphertext: bytes) -> bytes:
        """The shared secret of a KEM: 32 bytes, for a hybrid the combined one.

        A wrong ciphertext of the right form gives another secret.
        """
        ...

    async def public(self, handle: str) -> PublicKey:
        """The public half of a key that has one, as the custody has it."""
        ...

    async def handles(self) -> Sequence[str]:
        """Every handle that exists, for finding material that no record names."""
        ...

    async def destroy(self, handle: str) -> None:
        """Destroy one key; a handle that does not exist is not an error."""
        ...

    async def aclose(self) -> None:
        """Let go of sessions and threads."""
        ...

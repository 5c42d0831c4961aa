"""One suite for every custody."""

import asyncio
import os

import pytest
from contracts.conftest import Opener
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from envelock_formats.envelope import CIPHERTEXT_SIZES
from envelock_formats.kem import KemPrivateKey, KemPublicKey, encapsulate
from envelock_formats.privatekey import PrivateKey
from envelock_formats.publickey import algorithm_of_key
from envelock_formats.wrap import UnwrapError, curve_of, wrap_rsa
from envelock_kas.custody import (
    AES,
    EC,
    EC_ALGORITHMS,
    KEM_ALGORITHMS,
    RSA,
    RSA_ALGORITHMS,
    Custody,
    Made,
)
from envelock_kas.errors import CustodyError, KeyExistsError, RefusedKeyError

LABEL = "acme:records:v1@00"
AAD = b"tenant, key, object, policy"


def foreign(algorithm: str) -> PrivateKey:
    """A key that was made elsewhere."""
    if algorithm in RSA_ALGORITHMS:
        return rsa.generate_private_key(65537, int(algorithm[4:]))
    return ec.generate_private_key(curve_of(algorithm))


async def made(custody: Custody, algorithm: str) -> Made:
    """One fresh key."""
    [key] = await custody.make(LABEL, [algorithm])
    return key


class TestSymmetric:
    """AES-256-GCM with associated data."""

    async def test_unwraps_what_it_wrapped(self, custody: Custody):
        """Wrap and unwrap are inverse under the same associated data."""
        key, dek = await made(custody, AES), os.urandom(32)
        wrapped = await custody.wrap(key.handle, dek, AAD)

        assert len(wrapped) == 12 + 32 + 16
        assert await custody.unwrap(key.handle, wrapped, AAD) == dek

    async def test_never_repeats_a_nonce(self, custody: Custody):
        """Each wrap of the same data key differs."""
        key = await made(custody, AES)
        wrapped = [await custody.wrap(key.handle, bytes(32), AAD) for _ in range(100)]

        assert len({one[:12] for one in wrapped}) == 100

    @pytest.mark.parametrize("fault", ["aad", "bit", "short", "empty", "key"])
    async def test_every_wrong_input_is_one_error(self, custody: Custody, fault: str):
        """Another context, altered bytes, another key: one error, and the custody goes on."""
        key, dek = await made(custody, AES), os.urandom(32)
        [other] = await custody.make("acme:records:v2@00", [AES])
        wrapped = await custody.wrap(key.handle, dek, AAD)
        handle = other.handle if fault == "key" else key.handle
        garbled = {
            "bit": wrapped[:-1] + bytes([wrapped[-1] ^ 1]),
            "short": wrapped[:20],
            "empty": b"",
        }.get(fault, wrapped)

        with pytest.raises(UnwrapError):
            await custody.unwrap(handle, garbled, b"other" if fault == "aad" else AAD)
        assert await custody.unwrap(key.handle, wrapped, AAD) == dek


class TestAsymmetric:
    """What stock clients wrap to."""

    @pytest.mark.parametrize("algorithm", RSA_ALGORITHMS)
    async def test_decrypts_what_was_wrapped_to_its_public_key(
        self, custody: Custody, algorithm: str
    ):
        """RSA-OAEP: the public half that was handed out fits, and is as long as was asked."""
        key = await made(custody, algorithm)
        assert isinstance(key.public, rsa.RSAPublicKey)
        share = os.urandom(32)

        assert f"rsa:{key.public.key_size}" == algorithm
        assert await custody.decrypt(key.handle, wrap_rsa(share, key.public)) == share

    @pytest.mark.parametrize("garbled", [b"", b"x", bytes(256), b"\xff" * 256, bytes(300)])
    async def test_wrong_ciphertexts_are_one_error(self, custody: Custody, garbled: bytes):
        """Whatever is wrong with an RSA ciphertext, the error is the same."""
        key = await made(custody, RSA)

        with pytest.raises(UnwrapError):
            await custody.decrypt(key.handle, garbled)

    @pytest.mark.parametrize("algorithm", EC_ALGORITHMS)
    async def test_agrees_on_the_secret_that_the_peer_computes(
        self, custody: Custody, algorithm: str
    ):
        """ECDH gives the x-coordinate, as the client has it, whole."""
        key = await made(custody, algorithm)
        assert isinstance(key.public, ec.EllipticCurvePublicKey)
        ephemeral = ec.generate_private_key(curve_of(algorithm))
        secret = await custody.agree(key.handle, ephemeral.public_key())

        assert secret == ephemeral.exchange(ec.ECDH(), key.public)

    @pytest.mark.parametrize("algorithm", EC_ALGORITHMS)
    async def test_another_curve_does_not_unwrap(self, custody: Custody, algorithm: str):
        """A peer on another curve is a wrong input, not a fault of the custody."""
        key = await made(custody, algorithm)
        other = ec.generate_private_key(curve_of(EC_ALGORITHMS[algorithm == EC]))

        with pytest.raises(UnwrapError):
            await custody.agree(key.handle, other.public_key())

    async def test_tells_its_public_keys(self, custody: Custody):
        """The public half can be read again, to be held against the record."""
        for algorithm in (*EC_ALGORITHMS, RSA):
            [key] = await custody.make(f"acme:{algorithm[:2]}:v1@00", [algorithm])
            public = await custody.public(key.handle)

            assert public == key.public


class TestEncapsulation:
    """Post-quantum keys, where the custody holds them; a typed refusal where not."""

    @pytest.mark.parametrize("algorithm", KEM_ALGORITHMS)
    async def test_decapsulates_what_was_encapsulated(self, open_custody: Opener, algorithm: str):
        """The secret is the sender's, also when the custody is opened again."""
        async with open_custody() as first:
            if algorithm not in first.algorithms:
                with pytest.raises(RefusedKeyError):
                    await first.make(LABEL, [EC, algorithm])
                with pytest.raises(RefusedKeyError):
                    await first.adopt(LABEL, KemPrivateKey.generate(algorithm, os.urandom))
                assert list(await first.handles()) == []
                return
            key = await made(first, algorithm)
        assert isinstance(key.public, KemPublicKey)
        secret, ciphertext = encapsulate(key.public)
        async with open_custody() as custody:
            public = await custody.public(key.handle)
            opened = await custody.decapsulate(key.handle, ciphertext)

        assert (algorithm_of_key(public), public) == (algorithm, key.public)
        assert opened == secret

    @pytest.mark.parametrize("algorithm", KEM_ALGORITHMS)
    async def test_ciphertexts_of_another_form_are_one_error(
        self, custody: Custody, algorithm: str
    ):
        """Too short, too long, or none; a wrong one of the right form is another secret."""
        if algorithm not in custody.algorithms:
            with pytest.raises(CustodyError):
                await custody.decapsulate(f"{LABEL}#{algorithm.replace(':', '-', 1)}", b"")
            return
        key, size = await made(custody, algorithm), CIPHERTEXT_SIZES[algorithm]
        for wrong in (b"", bytes(size - 1), bytes(size + 1)):
            with pytest.raises(UnwrapError):
                await custody.decapsulate(key.handle, wrong)
        assert isinstance(key.public, KemPublicKey)
        secret, ciphertext = encapsulate(key.public)
        altered = bytes((ciphertext[0] ^ 1,)) + ciphertext[1:]

        assert await custody.decapsulate(key.handle, altered) != secret

    async def test_a_key_of_another_kind_decapsulates_nothing(self, custody: Custody):
        """An EC key is none of a KEM."""
        key = await made(custody, EC)

        with pytest.raises((UnwrapError, CustodyError)):
            await custody.decapsulate(key.handle, bytes(1088))


class TestAdopting:
    """Keys that were made elsewhere."""

    @pytest.mark.parametrize("algorithm", [*EC_ALGORITHMS, *RSA_ALGORITHMS])
    async def test_an_adopted_key_works_as_one_that_was_made_here(
        self, open_custody: Opener, algorithm: str
    ):
        """It has the public half that it had, opens what was wrapped to it, and stays."""
        key = foreign(algorithm)
        async with open_custody() as first:
            adopted = await first.adopt(LABEL, key)
        async with open_custody() as custody:
            public = await custody.public(adopted.handle)
            listed = list(await custody.handles())
            if isinstance(key, rsa.RSAPrivateKey):
                share = os.urandom(32)
                opened = await custody.decrypt(adopted.handle, wrap_rsa(share, key.public_key()))
            else:
                ephemeral = ec.generate_private_key(key.curve)
                opened = await custody.agree(adopted.handle, ephemeral.public_key())
                share = ephemeral.exchange(ec.ECDH(), key.public_key())

        assert (adopted.algorithm, adopted.public) == (algorithm, key.public_key())
        assert public == key.public_key()
        assert listed == [adopted.handle]
        assert opened == share

    async def test_a_key_is_adopted_once_under_one_label(self, custody: Custody):
        """What is there is never overwritten."""
        key = foreign(EC)
        await custody.adopt(LABEL, key)

        with pytest.raises(KeyExistsError):
            await custody.adopt(LABEL, foreign(EC))
        assert await custody.public(f"{LABEL}#ec-secp256r1") == key.public_key()

    async def test_a_destroyed_key_leaves_neither_half(self, custody: Custody):
        """Both halves of an adopted key go."""
        adopted = await custody.adopt(LABEL, foreign(RSA))
        await custody.destroy(adopted.handle)

        assert list(await custody.handles()) == []
        with pytest.raises(CustodyError):
            await custody.decrypt(adopted.handle, bytes(256))


class TestKeys:
    """Making, listing, destroying."""

    async def test_makes_one_key_for_each_algorithm(self, custody: Custody):
        """Handles are distinct, and all are listed."""
        keys = await custody.make(LABEL, custody.algorithms)

        assert [key.algorithm for key in keys] == list(custody.algorithms)
        assert sorted(key.handle for key in keys) == list(await custody.handles())

    async def test_refuses_to_make_a_key_twice(self, custody: Custody):
        """An existing key is never overwritten."""
        await custody.make(LABEL, [AES])

        with pytest.raises(KeyExistsError):
            await custody.make(LABEL, [AES])

    async def test_a_destroyed_key_is_gone(self, custody: Custody):
        """After destruction nothing is listed and nothing unwraps; again is no error."""
        key = await made(custody, AES)
        wrapped = await custody.wrap(key.handle, bytes(32), AAD)
        await custody.destroy(key.handle)
        await custody.destroy(key.handle)

        assert list(await custody.handles()) == []
        with pytest.raises(CustodyError):
            await custody.unwrap(key.handle, wrapped, AAD)

    @pytest.mark.parametrize("handle", ["none#aes-256", "none", "../x#aes-256", "", "x#rot-13"])
    async def test_a_handle_that_names_nothing_is_an_error(self, custody: Custody, handle: str):
        """An unknown handle is the custody's error, never an unwrap error."""
        with pytest.raises(CustodyError):
            await custody.unwrap(handle, bytes(60), AAD)

    async def test_keys_outlive_the_process_that_made_them(self, open_custody: Opener):
        """What is recorded after `make` returned is still there when opened again."""
        async with open_custody() as first:
            key = await made(first, AES)
            wrapped = await first.wrap(key.handle, b"k" * 32, AAD)
        async with open_custody() as second:
            opened = await second.unwrap(key.handle, wrapped, AAD)

        assert opened == b"k" * 32

    async def test_many_at_once_keep_apart(self, custody: Custody):
        """Operations in parallel do not mix up their keys or data."""
        keys = await custody.make(LABEL, custody.algorithms)
        aes = keys[0].handle
        deks = [os.urandom(32) for _ in range(40)]
        wrapped = await asyncio.gather(*(custody.wrap(aes, dek, dek[:4]) for dek in deks))
        opened = await asyncio.gather(
            *(custody.unwrap(aes, one, dek[:4]) for one, dek in zip(wrapped, deks, strict=True))
        )

        assert opened == deks

"""Public wrapping keys, each with the receipt of the record that introduced it.

A key is published only after its public half was compared with what the custody itself has.
"""

from collections.abc import Mapping

from envelock_formats.framing import b64
from envelock_formats.keyid import KeyPath
from envelock_formats.publickey import der_of_key, pem_of_key
from envelock_formats.wire import PublishedKey
from envelock_kas.custody import Custody
from envelock_kas.errors import CustodyError
from envelock_kas.keys.lifecycle import Actor, Lifecycle
from envelock_kas.keys.registry import Material
from envelock_kas.ledger import Ledger
from envelock_kas.projection import Projection


class Publisher:
    """Publishes public keys; one instance belongs to one worker."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        projection: Projection,
        lifecycle: Lifecycle,
        custodies: Mapping[str, Custody],
        kas_url: str,
    ) -> None:
        self._ledger = ledger
        self._projection = projection
        self._lifecycle = lifecycle
        self._custodies = custodies
        self._kas_url = kas_url
        self._checked: dict[str, str] = {}  # PEM by handle, compared with the custody

    async def publish(self, path: KeyPath, algorithm: str, actor: Actor) -> PublishedKey:
        """The public key that *path* wraps with now; the path's first key is made on first use.

        Args:
            path: The path.
            algorithm: Of the key; empty for the one that the version names first.
            actor: Who asks.

        Raises:
            TransitionError: Nothing new may be sealed under the path, or not offline.
            CustodyError: The custody did not answer, or has another key than the record.
            LookupError: The version has no key of that algorithm.
            LedgerError: The ledger did not answer.
        """
        await self._projection.catch_up()
        version = (await self._lifecycle.ensure(path, "offline", actor)).version
        material = version.material(algorithm) if algorithm else version.keys[0]
        if material is None:
            raise LookupError(algorithm)
        index = self._projection.registry.introduced(version.id)
        return PublishedKey(
            kid=str(version.id),
            algorithm=material.alg,
            pem=await self.checked(version.custody, material),
            path=path.text,
            url=self._kas_url,
            receipt=(await self._ledger.prove(index)).text(),
        )

    async def checked(self, custody: str, material: Material) -> str:
        """The PEM text of a public key, compared with what the custody has.

        Raises:
            CustodyError: The custody did not answer, or has another key than the record.
        """
        if (known := self._checked.get(material.handle)) is not None:
            return known
        key = await self._custodies[custody].public(material.handle)
        if b64(der_of_key(key)) != material.public:
            raise CustodyError(f"{material.handle}: the custody has another key than the record")
        pem = self._checked[material.handle] = pem_of_key(key)
        return pem

"""Which key path a tenant's new object uses, by the configured template."""

from collections.abc import Callable
from dataclasses import dataclass, field

from envelock_formats.framing import digest
from envelock_formats.keyid import KeyPath
from envelock_kas.keys.template import render

DEFAULT_DATASET = "records"
DEFAULT_ONLINE_DATASET = "vault"


@dataclass(frozen=True, slots=True)
class Naming:
    """Renders the template for one tenant and dataset at the time of asking."""

    template: str
    clock: Callable[[], float]
    secret: bytes = field(repr=False)

    def path(self, tenant: str, dataset: str, domain: str = "") -> KeyPath:
        """The path of an object that *tenant* seals now.

        Raises:
            KeyIdError: Dataset or domain have characters that a path may not have, or the template
                needs a domain and there is none.
        """
        pseudonyms = digest("envelock/pseudonym/v1", self.secret, tenant.encode())
        values = {"tenant": tenant, "dataset": dataset, "domain": domain}
        return render(self.template, values, now=self.clock(), pseudonym_key=pseudonyms)

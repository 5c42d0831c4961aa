"""Seal files under policy, and open them where the policy permits and the ledger has it on record.

```python
from envelock import Client

client = Client(profile="doctor")
sealed = client.encrypt(b"negative", attrs="clearance=secret")
plain = client.decrypt(sealed)
```
"""

from typing import TYPE_CHECKING

from envelock.errors import (
    ConfigError,
    DeniedError,
    EnvelockError,
    FormatError,
    KasNotAllowedError,
    NotAuthenticatedError,
    ReceiptError,
    SealedFileError,
    TamperedError,
    UnavailableError,
)

if TYPE_CHECKING:
    from envelock.aio import AsyncClient
    from envelock.assertions import Assertion, Demands, Secret, Statement
    from envelock.client import Client, Opened
    from envelock.reader import Reader
    from envelock.rebinding import Rebound
    from envelock.writer import Sealed

__all__ = [
    "Assertion",
    "AsyncClient",
    "Client",
    "ConfigError",
    "Demands",
    "DeniedError",
    "EnvelockError",
    "FormatError",
    "KasNotAllowedError",
    "NotAuthenticatedError",
    "Opened",
    "Reader",
    "Rebound",
    "ReceiptError",
    "Sealed",
    "SealedFileError",
    "Secret",
    "Statement",
    "TamperedError",
    "UnavailableError",
]

_HOMES = {
    "Assertion": "envelock.assertions",
    "AsyncClient": "envelock.aio",
    "Client": "envelock.client",
    "Demands": "envelock.assertions",
    "Opened": "envelock.client",
    "Reader": "envelock.reader",
    "Rebound": "envelock.rebinding",
    "Sealed": "envelock.writer",
    "Secret": "envelock.assertions",
    "Statement": "envelock.assertions",
}


def __getattr__(name: str) -> object:
    """Load a class when it is first asked for: `import envelock` stays quick."""
    import importlib  # noqa: PLC0415 as above

    if (home := _HOMES.get(name)) is None:
        raise AttributeError(f"module 'envelock' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)

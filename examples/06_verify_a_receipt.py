"""Keep the receipt of a release and verify it later, offline, with the pinned key of the ledger.

The client has verified it already; this is what an auditor does with it. Start a deployment first:
`envelock up`.
"""

from envelock import Client
from envelock_ledger.note import VerifierKey
from envelock_ledger.proof import Receipt

with Client(profile="doctor") as client:
    sealed = client.encrypt(b"negative", attrs="clearance=secret")
    with client.open(sealed) as reader:
        receipt = reader.receipt or ""
    pinned = client.session.ledger_key

record = Receipt.parse(receipt).verify(VerifierKey.parse(pinned))
print("record", record.index, "of", record.checkpoint.size, "in the log", record.checkpoint.origin)
print("it is a", record.fields["typ"], "to", record.openings["sub"][1])

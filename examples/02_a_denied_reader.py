"""Be refused. The reply does not say why; the ledger does, under the request id.

Start a deployment first: `envelock up`.
"""

from envelock import Client, DeniedError

with Client(profile="doctor") as doctor, Client(profile="accountant") as accountant:
    sealed = doctor.encrypt(b"negative", attrs="clearance=secret")
    try:
        accountant.decrypt(sealed)
    except DeniedError as error:
        print("refused:", error)
        print("ask an auditor to run: envelock ledger show", error.request_id)

"""Two organisations share one service: whoever owns the data says what the other opens of it.

Starts its own deployment with the shipped `coalition` policies; north's are in
`policies/envelock_policies/coalition/north`.
"""

import envelock_policies
from envelock import DeniedError
from envelock.testing import server

with server(envelock_policies.path("coalition")) as running:
    nora, sol = running.client("nora"), running.client("sol")  # of north, of south
    ours = nora.encrypt(b"for north", attrs="classification=confidential")
    both = nora.encrypt(b"for both", attrs=["classification=confidential", "releasable=south"])
    print("sol reads:", sol.decrypt(both).decode())
    try:
        sol.decrypt(ours)
    except DeniedError as error:
        print("sol is refused:", error.request_id, "is in north's ledger")

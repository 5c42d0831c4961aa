"""Split a key over two key access servers, so that it takes the consent of both to open a file.

Starts two deployments of its own; in real life `lab` is a profile for another organisation's.
"""

from envelock import KasNotAllowedError
from envelock.testing import server

with (
    server(kas_url="https://kas.clinic.example") as ours,
    server(kas_url="https://kas.lab.example") as theirs,
):
    clinic, lab = ours.client("doctor"), theirs.client("doctor")
    sealed = clinic.encrypt(b"negative", attrs="clearance=secret", splits=[clinic, lab])
    try:
        clinic.decrypt(sealed)
    except KasNotAllowedError as error:
        print("alone:", error)
    print("together:", clinic.with_peers(lab).decrypt(sealed).decode())

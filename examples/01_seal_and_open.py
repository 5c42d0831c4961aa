"""Seal bytes and a file, and open them again.

Start a deployment first: `envelock up`. Then: `python examples/01_seal_and_open.py`
"""

import tempfile
from pathlib import Path

from envelock import Client

with tempfile.TemporaryDirectory() as folder, Client(profile="doctor") as client:
    row = client.encrypt(b"negative", attrs="clearance=secret")
    print("bytes:", client.decrypt(row).decode())

    plain, sealed = Path(folder, "labs.csv"), Path(folder, "labs.csv.tdf")
    plain.write_text("patient,result\n42,negative\n")
    client.encrypt(plain, sealed, attrs=["clearance=secret", "department=cardiology"])
    opened = client.decrypt(sealed, Path(folder, "copy.csv"))
    print("file:", opened.size, "bytes, asks", ", ".join(opened.attrs))

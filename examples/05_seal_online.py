"""Let the KAS make the key: then nobody who once opened the file can give its key another policy.

The dataset of an online seal is for online seals only. Start a deployment first: `envelock up`.
"""

from envelock import Client

with Client(profile="doctor") as client:
    online = client.encrypt(b"negative", attrs="clearance=secret", dataset="notes", online=True)
    with client.open(online) as reader:
        print("opened:", reader.read().decode())
        key = reader.sealed.key_access[0]
        print("key:", key.kid, "made by", key.url)

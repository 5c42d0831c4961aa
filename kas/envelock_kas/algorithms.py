"""The kinds of keys that data is sealed to offline, by name."""

from typing import Literal, TypeAlias

OfflineAlgorithm: TypeAlias = Literal[
    "ec:secp256r1",
    "ec:secp384r1",
    "ec:secp521r1",
    "rsa:2048",
    "rsa:4096",
    "mlkem:768",
    "mlkem:1024",
    "hpqt:xwing",
    "hpqt:secp256r1-mlkem768",
    "hpqt:secp384r1-mlkem1024",
]

"""Text of others, made safe to print.

Names in manifests, fields of records and words of servers are chosen by strangers. Printed as they
are they could move the cursor, colour the terminal, or turn the direction of writing so that a line
reads as another one.
"""

import unicodedata

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # controls, bidi marks, surrogates, line ends


def printable(text: str) -> str:
    r"""Write every character that is not plainly visible as `\u{HEX}`; all others stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        f"\\u{{{ord(letter):x}}}" if unicodedata.category(letter) in _UNSAFE else letter
        for letter in text
    )

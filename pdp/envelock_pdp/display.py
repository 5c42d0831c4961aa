"""Text of others, made safe to print."""

import unicodedata

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # controls, bidi marks, surrogates, line ends


def shown(text: str) -> str:
    """Escape what would move the cursor, colour the terminal or turn the direction of writing."""
    return "".join(
        f"\\u{{{ord(letter):x}}}" if unicodedata.category(letter) in _UNSAFE else letter
        for letter in text
    )

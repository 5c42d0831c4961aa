r"""Regular expressions of `RegexMatch`: a subset that cannot run away.

A pattern must match the whole text. Allowed: literal characters, `.`, classes such as `[a-z]`,
`\d \w \s` and their opposites (ASCII), groups, `|`, and the quantifiers `* + ? {m} {m,n}`. Refused:
back-references, look-around, flags, lazy and possessive quantifiers, anchors but at the two ends.

A backtracking matcher tries, in the worst case, every way of dividing the text among the parts of
the pattern. That number is counted from the pattern: it must not exceed `MAX_WAYS` for a text of
`MAX_TEXT` characters, which also refuses every quantifier over a choice such as `(a+)+`.
"""

import re
from dataclasses import dataclass

MAX_TEXT = 256  # characters; a longer text cannot be evaluated
MAX_PATTERN = 256
MAX_WAYS = 100_000
MAX_NESTING = 8  # groups in groups
_QUANTIFIER = re.compile(r"\{([0-9]{1,3})(?:(,)([0-9]{1,3})?)?\}")
_CLASS = re.compile(r"\[\^?(?:(?!--)[^\[\]\\&|~]|\\(?:[dDwWsS]|[^A-Za-z0-9]))+\]")
_ESCAPE = re.compile(r"\\(?:[dDwWsS]|[^A-Za-z0-9])")
_SPECIAL = frozenset("^$*+?{}[]()|")


def compile_pattern(text: str) -> re.Pattern[str]:
    """Compile *text*, to be used with `fullmatch` on texts of at most `MAX_TEXT` characters.

    Raises:
        ValueError: Not in the subset, or too many ways to match.
    """
    if len(text) > MAX_PATTERN:
        raise ValueError(f"pattern is longer than {MAX_PATTERN} characters")
    reader = _Reader(text.removeprefix("^"))
    ways = reader.alternatives()
    if reader.left not in {"", "$"}:
        raise ValueError(f"pattern has {reader.left[0]!r} in a place that is not accepted")
    if ways > MAX_WAYS:
        raise ValueError(
            "pattern has nested or too many open quantifiers: bound them, as in {1,20}"
        )
    try:
        return re.compile(text, re.ASCII)
    except re.error as error:
        raise ValueError(f"pattern: {error.msg}") from error


@dataclass(slots=True)
class _Reader:
    """Reads a pattern from the left and counts the ways of each part, capped at `MAX_WAYS` + 1."""

    left: str
    depth: int = 0

    def alternatives(self) -> int:
        ways = self._sequence()
        while self.left.startswith("|"):
            self.left = self.left[1:]
            ways += self._sequence()
        return _capped(ways)

    def _sequence(self) -> int:
        ways = 1
        while self.left and self.left[0] not in ")|$":
            ways = _capped(ways * self._repeated(self._atom()))
        return ways

    def _atom(self) -> int:
        if self.left[0] == "(":
            return self._group()
        for accepted in (_CLASS, _ESCAPE):
            if found := accepted.match(self.left):
                self.left = self.left[found.end() :]
                return 1
        if self.left[0] in _SPECIAL or self.left[0] == "\\":
            raise ValueError(f"pattern has {self.left[:2]!r} in a place that is not accepted")
        self.left = self.left[1:]
        return 1

    def _group(self) -> int:
        self.left = self.left[1:].removeprefix("?:")
        if self.left.startswith("?"):
            raise ValueError("pattern has a group of a kind that is not accepted")
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise ValueError(f"pattern nests groups deeper than {MAX_NESTING}")
        ways = self.alternatives()
        if not self.left.startswith(")"):
            raise ValueError("pattern has a group that is not closed")
        self.left = self.left[1:]
        self.depth -= 1
        return ways

    def _repeated(self, ways: int) -> int:
        bounds = self._quantifier()
        if bounds is None:
            return ways
        least, most = bounds
        if self.left[:1] in {"*", "+", "?", "{"}:
            raise ValueError("pattern has a quantifier on a quantifier")
        if ways == 1:
            return most - least + 1
        total = 0
        for times in range(least, most + 1):
            total = _capped(total + ways**times)
            if total > MAX_WAYS:
                break
        return total

    def _quantifier(self) -> tuple[int, int] | None:
        simple = {"*": (0, MAX_TEXT), "+": (1, MAX_TEXT), "?": (0, 1)}
        if (bounds := simple.get(self.left[:1])) is not None:
            self.left = self.left[1:]
            return bounds
        if (found := _QUANTIFIER.match(self.left)) is None:
            return None
        self.left = self.left[found.end() :]
        least = int(found[1])
        most = least if not found[2] else int(found[3] or MAX_TEXT)
        if not least <= most <= MAX_TEXT:
            raise ValueError(f"pattern repeats {found[0]}: at most {MAX_TEXT}, least first")
        return least, most


def _capped(ways: int) -> int:
    return min(ways, MAX_WAYS + 1)

"""Patterns: what is accepted cannot run away."""

import time

import pytest

from envelock_pdp.patterns import MAX_TEXT, MAX_WAYS, compile_pattern

REFUSED = [
    "(a+)+",
    "^(a+)+$",
    "(a*)*",
    "(a|a)*",
    "(a|aa)+",
    "([a-z]+)*",
    "(a?){30}a{30}",
    "a?" * 30,
    ".*.*.*",
    "(.*)(.*)(.*)x",
    "a{1,999}",
    "a{3,2}",
    "a**",
    "a+?",
    "a++",
    "(?i)a",
    "(?=a)",
    "(?P<n>a)",
    "(a)\\1",
    "\\ba",
    "a\\Z",
    "a^b",
    "a$b",
    "a)",
    "(a",
    "[a",
    "[]",
    "[z-a]",
    "[a--b]",
    "{",
    "*",
    "\\",
    "a" * 257,
    "(" * 9 + ")" * 9,
]
ACCEPTED = [
    ("[a-z]+\\.[a-z]+", "a.b", "a.b.c"),
    ("^(?:doctor|nurse)-[0-9]{1,4}$", "nurse-12", "xnurse-12"),
    ("\\d{4}-\\d{2}", "2026-11", "\u0662\u0660\u0662\u0666-\u0661\u0661"),
    ("[^@]{1,64}@clinic\\.example", "a@clinic.example", "a@clinicXexample"),
    ("", "", "a"),
    ("a|b", "b", "ab"),
    ("(ab){2,3}", "abab", "ab"),
]


@pytest.mark.parametrize("pattern", REFUSED)
def test_refuses_what_could_run_away_or_is_not_in_the_subset(pattern):
    """Nested and too many open quantifiers, and every construct outside the subset."""
    with pytest.raises(ValueError, match="pattern"):
        compile_pattern(pattern)


@pytest.mark.parametrize(("pattern", "whole", "part"), ACCEPTED)
def test_matches_whole_texts(pattern, whole, part):
    """A pattern matches all of a text or nothing of it."""
    compiled = compile_pattern(pattern)

    assert compiled.fullmatch(whole)
    assert not compiled.fullmatch(part)


@pytest.mark.parametrize("pattern", [".*.*", "(a|b){16}", "(a|aa){1,6}[a-z]{0,200}", ".*a.*"])
def test_the_costliest_accepted_pattern_ends_soon(pattern):
    """The bound on ways is a bound on time."""
    text = "a" * (MAX_TEXT - 1) + "!\n"
    started = time.process_time()

    compile_pattern(pattern).fullmatch(text[:MAX_TEXT])

    assert time.process_time() - started < 0.5
    assert MAX_WAYS == 100_000

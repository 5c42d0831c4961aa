"""What is kept beside a profile: heads that are never lost, and a cache that stays small."""

import json
import stat
import threading
from pathlib import Path

import pytest

from envelock.errors import ConfigError, ReceiptError
from envelock.state import MAX_CACHED, Cache, Head, Heads

KEY = "envelock-1+00000000+AQ=="
FIRST, SECOND = Head(1, bytes(32)), Head(2, bytes([1]) * 32)
DAY = 86_400


@pytest.fixture(params=["file", "memory"])
def file(request, tmp_path: Path) -> Path | None:
    """Where to keep it."""
    return tmp_path / "p.json" if request.param == "file" else None


class TestHeads:
    """The newest head of each ledger."""

    def test_a_head_is_kept_for_its_key(self, file: Path | None):
        """Another ledger's head is another's."""
        heads = Heads(file)
        heads.advance(KEY, None, FIRST)
        heads.advance("other", None, SECOND)

        assert (heads.newest(KEY), heads.newest("other")) == (FIRST, SECOND)

    def test_only_what_extends_the_present_head_replaces_it(self, file: Path | None):
        """A proof from an older head says nothing of the present one."""
        heads = Heads(file)
        heads.advance(KEY, None, FIRST)
        heads.advance(KEY, FIRST, SECOND)
        heads.advance(KEY, FIRST, Head(3, bytes(32)))
        heads.advance(KEY, None, Head(4, bytes(32)))

        assert heads.newest(KEY) == SECOND

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", json.dumps({KEY: [0, ""]}), json.dumps({KEY: [1, "?"]}), "\udcff"]
    )
    def test_a_malformed_file_is_refused(self, tmp_path: Path, text: str):
        """Starting anew would hide that a ledger was rolled back."""
        file = tmp_path / "p.heads.json"
        file.write_bytes(text.encode("utf-8", "surrogateescape"))

        with pytest.raises(ReceiptError, match="malformed") as caught:
            Heads(file).newest(KEY)
        assert "restore the file" in (caught.value.hint or "")
        with pytest.raises(ReceiptError):
            Heads(file).advance(KEY, None, FIRST)

    def test_an_unreadable_file_is_refused(self, tmp_path: Path):
        """The same."""
        with pytest.raises(ReceiptError, match="Is a directory"):
            Heads(tmp_path).newest(KEY)

    def test_a_place_that_cannot_be_written_is_named(self, tmp_path: Path):
        """A head that is not kept protects nobody."""
        with pytest.raises(ConfigError, match="No such file"):
            Heads(tmp_path / "none" / "p.heads.json").advance(KEY, None, FIRST)

    def test_threads_lose_no_head(self, file: Path | None):
        """Changes take turns."""
        heads = Heads(file)
        threads = [
            threading.Thread(target=heads.advance, args=(f"key{n}", None, FIRST)) for n in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert all(heads.newest(f"key{n}") == FIRST for n in range(16))


class TestCache:
    """Answers that are kept for a while."""

    def test_an_answer_is_kept_until_it_is_old(self, file: Path | None):
        """Also one that claims to be of the future is not fresh."""
        cache = Cache(file)
        cache.put("a", {"x": 1}, now=100)

        assert cache.get("a", now=109, seconds=10) == {"x": 1}
        assert cache.get("a", now=110, seconds=10) is None
        assert cache.get("a", now=99, seconds=10) is None
        assert cache.get("b", now=100, seconds=10) is None

    def test_the_oldest_are_dropped(self, file: Path | None):
        """The file stays small, whatever is asked."""
        cache = Cache(file)
        for n in range(MAX_CACHED + 5):
            cache.put(f"{n}", n, now=1_000 - n if n < 5 else 1_000 + n)

        assert cache.get(f"{MAX_CACHED + 4}", now=2_000, seconds=DAY) == MAX_CACHED + 4
        assert [cache.get(f"{n}", now=2_000, seconds=DAY) for n in range(5)] == [None] * 5
        assert cache.get("5", now=2_000, seconds=DAY) == 5

    @pytest.mark.parametrize("text", ["", "[1]", '{"a": 1}', '{"a": {"at": "1", "value": 2}}'])
    def test_what_is_malformed_counts_as_empty(self, tmp_path: Path, text: str):
        """Nothing in it is needed."""
        file = tmp_path / "p.state.json"
        file.write_text(text)
        cache = Cache(file)

        assert cache.get("a", now=1, seconds=10) is None
        cache.put("a", "b", now=1)
        assert cache.get("a", now=1, seconds=10) == "b"

    def test_a_place_that_cannot_be_written_keeps_nothing(self, tmp_path: Path):
        """Without an error: the answer is asked for again."""
        cache = Cache(tmp_path / "none" / "p.state.json")
        cache.put("a", "b", now=1)

        assert cache.get("a", now=1, seconds=10) is None


def test_a_full_cache_forgets_no_head(tmp_path: Path):
    """They lie in files of their own, of mode 0600."""
    heads, cache = Heads(tmp_path / "p.heads.json"), Cache(tmp_path / "p.state.json")
    heads.advance(KEY, None, FIRST)
    for n in range(3):
        cache.put(f"{n}", "r" * 2_000_000, now=n)

    assert heads.newest(KEY) == FIRST
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}

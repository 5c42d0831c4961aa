"""`envelock demo`: the story goes as it should, and says so when it does not."""

import re

from e2e.shell import Shell, reads


def test_ten_of_ten(tmp_path):
    """Every step is as expected, in order, and everything is kept."""
    done = Shell(tmp_path)("demo --data story --size 4")

    assert done.code == 0, done.out + done.err
    assert reads(
        done.out,
        f"""
 1/10  services up, keys in ...   http://...
 2/10  4 MB sealed for clinic:records ...   asks clearance=secret
 3/10  doctor opens it ...   same bytes; receipt verified
 4/10  accountant refused ...   reply names no reason; record ...: entitlement clearance
 5/10  key rotated, no file rewritten ...   clinic:records:...: v1 deprecated, v2 active
 6/10  the old file still opens ...   under v1
 7/10  clinic:records suspended: doctor refused ...   ... key versions, record ...
 8/10  resumed; one byte changed: refused ...   tampered
 9/10  ledger verifies ...   ... records, chain, tree, signature
10/10  bit flipped: verify names record ...   record ..., column body: does not match its leaf
10 of 10 as expected, ... s; everything kept in {tmp_path}/story
look  envelock ledger show --data {tmp_path}/story/data
""",
    )
    assert re.search(r"record (\d+): entit", done.out)[1] in done.out.splitlines()[9]
    assert (tmp_path / "story" / "archive.bin.tdf").exists()


def test_a_directory_in_use_is_left_alone(tmp_path):
    """The demonstration suspends keys: it never does so in a deployment that exists."""
    (tmp_path / "mine").write_text("precious")

    done = Shell(tmp_path)("demo --json", "--data", tmp_path)

    assert done.code == 2
    assert "not empty" in done.problem["error"]
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]

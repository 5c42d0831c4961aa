"""Bundles in force: whole or not at all, under their epoch, kept up with the disk."""

import contextlib
import os
from pathlib import Path

import pytest
from pdp.service import FakeEpochs, write_bundle
from pdp.world import files, rule

from envelock_formats.framing import b64url
from envelock_pdp import NotInForceError
from envelock_pdp.folder import load_bundle
from envelock_pdp.inforce import MAX_WAIT, Policies

ONE = rule("one", "deny")
TWO = rule("two", "deny")


class Watched:
    """A folder of policies that is looked at by hand."""

    def __init__(self, folder, *confirmed):
        self.folder, self.epochs, self.lines = folder, FakeEpochs(), []
        self.policies = Policies(folder, self.epochs, confirmed, self.lines.append)
        self._moment = 0

    def write(self, content, name="clinic"):
        """Write files; each write is later than the one before, whatever the file system keeps."""
        write_bundle(self.folder / name, content)
        self._moment += 1
        for path in content:
            os.utime(self.folder / name / path, ns=(self._moment, self._moment))

    async def polls(self, times=2):
        """Look that often; returns the lines said meanwhile."""
        self.lines.clear()
        for _ in range(times):
            await self.policies.refresh()
        return list(self.lines)

    def rules(self, tenant="clinic"):
        """Ids of the rules in force, and their epoch."""
        found = self.policies.of(tenant)
        return [one.uid for one in found.bundle.rules.rules], found.epoch


@pytest.fixture
def watched(tmp_path):
    """An empty folder, watched."""
    return Watched(tmp_path)


async def test_a_bundle_is_in_force_with_its_first_epoch(watched):
    """At start it is loaded at once."""
    watched.write(files(ONE))
    lines = await watched.polls(1)

    assert watched.rules() == (["one"], 1)
    assert lines == ["policy clinic: epoch 1 in force, record 1"]


async def test_a_change_is_in_force_under_a_new_epoch(watched):
    """Old epoch, new epoch and record are said."""
    watched.write(files(ONE))
    await watched.polls()
    watched.write(files(TWO))
    lines = await watched.polls()

    assert watched.rules() == (["two"], 2)
    assert lines == ["policy clinic: epoch 1 -> 2 in force, record 2"]


async def test_a_malformed_change_keeps_the_one_before(watched):
    """Whole or not at all, and the line says where it is wrong."""
    watched.write(files(ONE))
    await watched.polls()
    watched.write(files(TWO) | {"rules/hours.json": b'[\n{"uid": "a"\n"effect": 1}]'})
    lines = await watched.polls(3)

    assert watched.rules() == (["one"], 1)
    assert lines == ['policy clinic: epoch 1 kept: rules/hours.json line 3: expected ","']


def _nested(folder):
    (folder / "bundle.toml").write_text("a=" + "[" * 5000)


def _not_utf8(folder):
    (folder / os.fsdecode(b"rules/\xff.json")).write_bytes(b"[]")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(_nested, "bundle.toml: is nested too deep"), (_not_utf8, "is not UTF-8")],
)
async def test_a_change_that_cannot_be_read_keeps_the_one_before(watched, spoil, words):
    """Whatever is in the folder, the watch goes on; once it is gone, changes are in force again."""
    watched.write(files(ONE))
    await watched.polls()
    spoil(watched.folder / "clinic")
    lines = await watched.polls(3)
    kept = watched.rules()
    for path in (watched.folder / "clinic" / "rules").iterdir():
        path.unlink()
    watched.write(files(TWO))
    await watched.polls()

    assert len(lines) == 1
    assert words in lines[0]
    assert (kept, watched.rules()) == ((["one"], 1), (["two"], 2))


@pytest.mark.parametrize("last", [1, 2])  # before the bundle is loaded, and right after
async def test_a_file_that_vanishes_under_our_eyes_changes_nothing(watched, monkeypatch, last):
    """Editors write beside a file and rename: nothing is said, and nothing ends."""
    watched.write(files(ONE))
    await watched.polls()
    scandir, looks = os.scandir, []

    @contextlib.contextmanager
    def vanishing(folder):
        with scandir(folder) as entries:
            found = list(entries)
        looks.extend([1] * (Path(folder).name == "rules"))
        if len(looks) == last:
            temporary.unlink(missing_ok=True)
        yield found

    watched.write(files(TWO))
    temporary = watched.folder / "clinic" / "rules" / "new.json"
    temporary.write_bytes(b"[]")
    await watched.polls(1)
    monkeypatch.setattr(os, "scandir", vanishing)
    lines = await watched.polls(4)

    assert not temporary.exists()
    assert lines == ["policy clinic: epoch 1 -> 2 in force, record 2"]


async def test_a_corrected_change_is_in_force(watched):
    """What was refused once is read again when it changes."""
    watched.write(files(ONE))
    await watched.polls()
    watched.write({"rules/all.json": b"["})
    await watched.polls()
    watched.write(files(TWO))
    await watched.polls()

    assert watched.rules() == (["two"], 2)


async def test_a_change_under_way_is_left_alone(watched):
    """Between two saves of one edit nothing is loaded."""
    watched.write(files(ONE))
    await watched.polls()
    watched.write({"mappings.json": b"[]"})
    await watched.polls(1)
    watched.write(files(TWO))
    await watched.polls(1)
    during = watched.rules()
    await watched.polls(1)

    assert (during, watched.rules()) == ((["one"], 1), (["two"], 2))
    assert watched.epochs.history["clinic"][1:] == [watched.policies.of("clinic").bundle.digest]


async def test_cases_and_people_change_nothing(watched):
    """What never decides makes no epoch."""
    watched.write(files(ONE))
    await watched.polls()
    watched.write({"people.json": b"{}", "cases/a.json": b"?", "rules/.swap.json": b"?"})
    lines = await watched.polls(3)

    assert (watched.rules(), lines) == ((["one"], 1), [])


async def test_a_touched_bundle_is_the_same_bundle(watched):
    """Same bytes, same epoch, nothing to say."""
    watched.write(files(ONE))
    await watched.polls()
    watched.write(files(ONE))
    lines = await watched.polls(3)

    assert (watched.rules(), lines) == ((["one"], 1), [])
    assert len(watched.epochs.confirmed) == 1


async def test_a_rollback_keeps_the_one_before(watched):
    """An older bundle does not come back by itself; the line says how it does."""
    watched.write(files(ONE))
    await watched.polls()
    digest = b64url(watched.policies.of("clinic").bundle.digest)
    watched.write(files(TWO))
    await watched.polls()
    watched.write(files(ONE))
    lines = await watched.polls(3)

    assert watched.rules() == (["two"], 2)
    assert len(lines) == 1
    assert lines[0].startswith("policy clinic: epoch 2 kept: this bundle was in force before")
    assert f'[pdp] confirm_rollback = ["{digest}"]' in lines[0]


async def test_a_confirmed_rollback_is_a_new_epoch(tmp_path):
    """An operator's word lets one digest come back."""
    write_bundle(tmp_path / "b", files(ONE))
    watched = Watched(tmp_path, b64url(load_bundle(tmp_path / "b").digest))
    for content in (files(ONE), files(TWO), files(ONE)):
        watched.write(content, "b")
        await watched.polls()

    assert watched.rules() == (["one"], 3)
    assert watched.epochs.confirmed == [True, False, True]


async def test_without_an_epoch_nothing_is_in_force(watched):
    """A bundle that could not be announced does not decide, and is announced again."""
    watched.epochs.down = True
    watched.write(files(ONE))
    lines = await watched.polls(1)
    with pytest.raises(NotInForceError):
        watched.policies.of("clinic")
    watched.epochs.down = False
    await watched.polls(3)

    assert lines == ["policy clinic: waits for its epoch: down"]
    assert watched.rules() == (["one"], 1)


async def test_a_tightened_policy_does_not_go_on_in_its_old_form(watched):
    """A change that cannot be announced takes the one before out of force."""
    watched.write(files(ONE))
    await watched.polls()
    watched.epochs.down = True
    watched.write(files(TWO))
    await watched.polls()
    with pytest.raises(NotInForceError):
        watched.policies.of("clinic")
    watched.epochs.down = False
    lines = await watched.polls(4)

    assert watched.rules() == (["two"], 2)
    assert lines == ["policy clinic: epoch 1 -> 2 in force, record 2"]


async def test_attempts_back_off(watched):
    """An epoch that is not to be had is asked for less and less often."""
    watched.epochs.down = True
    watched.write(files(ONE))
    await watched.polls(100)

    assert 100 / MAX_WAIT <= len(watched.epochs.confirmed) < 14


class TestSeveral:
    """Several bundles in one folder."""

    async def test_each_tenant_has_its_own(self, watched):
        """Tenants and namespaces lead to their bundle."""
        watched.write(files(ONE))
        watched.write(files(TWO, tenant="globex", namespace="globex.example"), "globex")
        await watched.polls()

        assert (watched.rules(), watched.rules("globex")) == ((["one"], 1), (["two"], 1))
        assert watched.policies.owner({"globex.example"}) == "globex"
        assert watched.policies.owner({"globex.example", "clinic.example"}) is None
        assert watched.policies.owner(()) is None

    @pytest.mark.parametrize(
        ("tenant", "namespace", "problem"),
        [
            ("clinic", "other.example", "tenant clinic has a bundle: clinic"),
            ("globex", "clinic.example", "namespace clinic.example is that of clinic"),
        ],
    )
    async def test_neither_tenant_nor_namespace_is_shared(
        self, watched, tenant, namespace, problem
    ):
        """The second one is refused, and the first stays."""
        watched.write(files(ONE))
        watched.write(files(TWO, tenant=tenant, namespace=namespace), "other")
        lines = await watched.polls()

        assert f"policy other: not in force: bundle.toml: {problem}" in lines
        assert watched.rules() == (["one"], 1)
        assert watched.policies.missing() == ("other",)

    async def test_one_that_is_malformed_stops_no_other(self, watched):
        """Each loads for itself."""
        watched.write({"bundle.toml": b"?"}, "broken")
        watched.write(files(ONE))
        await watched.polls()

        assert watched.rules() == (["one"], 1)

    async def test_one_that_comes_later_is_found(self, watched):
        """A new folder needs no restart."""
        watched.write(files(ONE))
        await watched.polls()
        watched.write(files(TWO, tenant="globex", namespace="globex.example"), "globex")
        await watched.polls()

        assert watched.rules("globex") == (["two"], 1)


async def test_a_bundle_keeps_its_tenant(watched):
    """Another tenant in the same folder is a mistake."""
    watched.write(files(ONE))
    await watched.polls()
    watched.write(files(ONE, tenant="globex"))
    lines = await watched.polls()

    assert watched.rules() == (["one"], 1)
    assert "the tenant of a bundle does not change" in lines[0]


async def test_a_folder_that_goes_away_keeps_what_is_in_force(watched):
    """Files lost by accident open nothing and close nothing; deleting all of them is said once."""
    watched.write(files(ONE))
    await watched.polls()
    for path in files():
        (watched.folder / "clinic" / path).unlink()
    lines = await watched.polls(3)

    assert watched.rules() == (["one"], 1)
    assert len(lines) == 1


async def test_text_of_files_cannot_steer_the_terminal(watched):
    """Control and bidi characters of a bundle are escaped in what is said."""
    hostile = rule("a", "deny", subject={"$.x": {"condition": "\x1b[2J\u202e"}})
    watched.write(files(hostile))
    [line] = await watched.polls(1)

    assert "\\u{1b}[2J\\u{202e}" in line
    assert line.isprintable()

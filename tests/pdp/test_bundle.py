"""Bundles: read whole or not at all, with the place of every fault; and their digest."""

import json

import pytest
from pdp.world import ATTRIBUTES, bundle, files, rule

from envelock_formats.framing import digest
from envelock_pdp import BundleError
from envelock_pdp.bundle import decides, read_bundle
from envelock_pdp.cases import read_cases, read_people
from envelock_pdp.folder import find_bundles, load_bundle, read_all_files, signature

HEAD = b'tenant = "clinic"\nnamespaces = ["clinic.example"]\ncontact = "c"\nrules = "optional"\n'
MAPPING = {"claim": "$.a", "operator": "in", "values": ["a"], "grants": "clearance=secret"}
REFUSED = [
    ("bundle.toml", b"tenant =", "bundle.toml", "Invalid value"),
    ("bundle.toml", HEAD + b"owner = 1\n", "bundle.toml", "unknown field `owner`"),
    ("bundle.toml", HEAD.replace(b'"optional"', b'"maybe"'), "bundle.toml /rules", "Invalid enum"),
    ("bundle.toml", HEAD.replace(b'"clinic"', b'"a:b"'), "bundle.toml", "'a:b' is not the name"),
    ("bundle.toml", HEAD.replace(b"clinic.example", b"Clinic"), "bundle.toml", "attribute"),
    ("bundle.toml", HEAD.replace(b'["clinic.example"]', b'["a", "a"]'), "bundle.toml", "repeated"),
    ("bundle.toml", HEAD.replace(b'"c"', b'"a\\u001bb"'), "bundle.toml", "contact"),
    ("bundle.toml", HEAD + b'sharing = ["a b"]\n', "bundle.toml", "key path"),
    ("attributes.json", b"{}", "attributes.json", "Expected `array`"),
    ("attributes.json", b'[{"name": "a"}]', "attributes.json /0", "missing required field `rule`"),
    ("attributes.json", [{**ATTRIBUTES[0], "name": "A"}], "attributes.json /0", "lower case"),
    ("attributes.json", [{**ATTRIBUTES[0], "name": "tenant"}], "attributes.json /0/name", "taken"),
    ("attributes.json", [{**ATTRIBUTES[0], "rule": "any"}], "attributes.json /0/rule", "enum"),
    ("attributes.json", [{**ATTRIBUTES[0], "values": []}], "attributes.json /0/values", "expected"),
    (
        "attributes.json",
        [{**ATTRIBUTES[0], "values": ["a", "a"]}],
        "attributes.json /0/values",
        "exp",
    ),
    (
        "attributes.json",
        [{**ATTRIBUTES[0], "namespace": "x.example"}],
        "attributes.json /0/namespace",
        "x",
    ),
    ("attributes.json", [ATTRIBUTES[0], ATTRIBUTES[0]], "attributes.json /1/name", "defined twice"),
    ("mappings.json", [{**MAPPING, "claim": "a"}], "mappings.json /0/claim", "is not a path"),
    ("mappings.json", [{**MAPPING, "operator": "is"}], "mappings.json /0/operator", "enum"),
    ("mappings.json", [{**MAPPING, "values": []}], "mappings.json /0/values", "needs values"),
    (
        "mappings.json",
        [{**MAPPING, "operator": "contains", "values": [1]}],
        "mappings.json /0/values",
        "texts",
    ),
    (
        "mappings.json",
        [{**MAPPING, "grants": "clearance=x"}],
        "mappings.json /0/grants",
        "is not defined",
    ),
    ("mappings.json", [{**MAPPING, "grants": "clearance"}], "mappings.json /0/grants", "expected"),
    ("rules/all.json", b'[\n{"uid": "a"\n"effect": 1}]', "rules/all.json line 3", 'expected ","'),
    ("rules/all.json", b'{"uid" 1}', "rules/all.json line 1", 'expected ":"'),
    ("rules/all.json", b'{"uid": 1,}', "rules/all.json line 1", ""),
    ("rules/all.json", b'{"a": 1, "a": 2}', "rules/all.json", "repeats a name"),
    ("rules/all.json", b"\xff", "rules/all.json", "UTF-8"),
    ("rules/all.json", [rule()], "rules/all.json /0", "permits everybody"),
    ("rules/all.json", [rule("a", "deny"), rule("a", "deny")], "rules/all.json", "used twice"),
    ("people.json", {"a": {"sub": "a"}}, "people.json /a", '"sub" and "tenant"'),
    ("cases/a.json", [{"name": "n"}], "cases/a.json /0", "missing required field `expect`"),
    ("cases/a.json", {"name": "n", "expect": "permit"}, "cases/a.json", 'either "as" or "claims"'),
    (
        "cases/a.json",
        {"name": "n", "expect": "permit", "as": "x"},
        "cases/a.json/as",
        "not in people",
    ),
    (
        "cases/a.json",
        {"name": "n", "expect": "permit", "claims": {}, "attrs": "colour=red"},
        "cases/a.json",
        "names no attributes",
    ),
    (
        "cases/a.json",
        {"name": "n", "expect": "permit", "claims": {}, "at": "2026-01-01"},
        "cases/a.json",
        "has no time zone",
    ),
]


@pytest.mark.parametrize(("path", "content", "where", "problem"), REFUSED)
def test_refuses_a_malformed_file_with_its_place(path, content, where, problem):
    """One fault anywhere refuses the whole bundle, and says where it is."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    changed = files() | {path: text}

    with pytest.raises(BundleError) as caught:
        read_cases(read_bundle(changed), changed)

    assert (caught.value.where, problem in caught.value.problem) == (where, True), caught.value
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("path", ["bundle.toml", "attributes.json", "mappings.json"])
def test_refuses_a_bundle_without(path):
    """The three single files are needed; rules are not."""
    kept = {name: text for name, text in files().items() if name != path}

    with pytest.raises(BundleError, match="is missing"):
        read_bundle(kept)


def test_needs_no_rules():
    """A bundle may rest on entitlement alone."""
    kept = {name: text for name, text in files().items() if not name.startswith("rules/")}

    assert read_bundle(kept).rules.rules == ()


class TestDigest:
    """The digest names the policies that decide, and nothing else."""

    def test_is_over_the_sorted_paths_and_bytes(self):
        """Anybody can recompute it from the files."""
        content = files()
        fields = [part for path in sorted(content) for part in (path.encode(), content[path])]

        assert read_bundle(content).digest == digest("envelock/bundle/v1", *fields)

    @pytest.mark.parametrize("path", sorted(files()))
    def test_changes_with_every_file_that_decides(self, path):
        """One more byte of white space is another bundle."""
        content = files()

        assert bundle().digest != read_bundle(content | {path: content[path] + b"\n"}).digest

    @pytest.mark.parametrize(
        "path", ["cases/a.json", "people.json", "rules/.draft.json", "README.md"]
    )
    def test_does_not_cover_what_never_decides(self, path):
        """Cases, people and other files may change without a new epoch."""
        assert not decides(path)
        assert read_bundle(files() | {path: b"x"}).digest == bundle().digest


def _write(folder, content):
    for path, text in content.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text)


class TestFolder:
    """Bundles on disk."""

    def test_reads_the_same_bundle_as_from_bytes(self, tmp_path):
        """Reading a folder adds and loses nothing."""
        _write(
            tmp_path, files() | {"people.json": b"{}", "cases/a.json": b"[]", "rules/.x.json": b"?"}
        )

        assert load_bundle(tmp_path).digest == bundle().digest
        assert {"people.json", "cases/a.json"} <= read_all_files(tmp_path).keys()

    def test_finds_one_bundle_or_a_folder_of_them(self, tmp_path):
        """A folder that is a bundle, else every bundle in it by name."""
        for name in ("b", "a"):
            _write(tmp_path / name, files())

        assert find_bundles(tmp_path) == (tmp_path / "a", tmp_path / "b")
        assert find_bundles(tmp_path / "a") == (tmp_path / "a",)

    @pytest.mark.parametrize("name", ["", "missing"])
    def test_refuses_a_folder_without_bundles(self, tmp_path, name):
        """An empty or missing folder is an error, not an empty policy."""
        with pytest.raises(BundleError):
            find_bundles(tmp_path / name)

    def test_sees_a_change(self, tmp_path):
        """The signature changes with content, and with a file that comes or goes."""
        _write(tmp_path, files())
        seen = {signature(tmp_path)}
        _write(tmp_path, {"rules/all.json": b"[ ]"})
        seen.add(signature(tmp_path))
        _write(tmp_path, {"rules/new.json": b"[]"})
        seen.add(signature(tmp_path))

        assert len(seen) == 3


def test_reads_people():
    """Claims by name, as they are."""
    assert read_people(b'{"a": {"sub": "a", "tenant": "t", "n": [1]}}') == {
        "a": {"sub": "a", "tenant": "t", "n": [1]}
    }

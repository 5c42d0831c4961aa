"""Keys: made, rotated, suspended, destroyed; every step one record."""

import asyncio

import pytest
from kas.world import World, another_worker, path

from envelock_formats.keyid import KeyId, KeyIdError
from envelock_kas.errors import KeyExistsError, TransitionError
from envelock_kas.keys.lifecycle import Actor
from envelock_kas.keys.registry import Registry, RegistryError
from envelock_kas.keys.states import FOLLOWERS, State
from envelock_kas.keys.template import TemplateError, check_template, render
from envelock_kas.records import Origin
from envelock_ledger.errors import LedgerUnavailableError

OPERATOR = Actor(Origin("r-operator"))
KEY = "clinic:records:2026-11"


class TestMaking:
    """First use, and what it makes."""

    async def test_first_use_makes_the_path_and_what_stands_above(self, world: World):
        """Tenant and dataset get versions of their own, without keys, so they can be shut."""
        await world.worker.lifecycle.ensure(path(KEY), "offline", OPERATOR)

        registry = world.worker.projection.registry
        found = {
            str(item): len(registry.versions(item)[0].keys) for item in registry.paths("clinic")
        }
        assert found == {"clinic": 0, "clinic:records": 0, KEY: 2}

    async def test_many_at_once_make_one_key(self, world: World):
        """Sixteen first uses on two workers: one version, one record, no key left over."""
        workers = [world.worker, await another_worker(world)]
        standings = await asyncio.gather(
            *(workers[n % 2].lifecycle.ensure(path(KEY), "offline", OPERATOR) for n in range(16))
        )
        versions = {str(standing.version.id) for standing in standings}

        assert versions == {f"{KEY}:v1"}
        assert len(await world.records("key.lifecycle")) == 1
        assert len(await world.custody.handles()) == 2

    async def test_the_way_of_wrapping_is_fixed_for_a_dataset(self, world: World):
        """An online dataset has online keys only, and an offline one offline keys only."""
        lifecycle = world.worker.lifecycle
        await lifecycle.ensure(path("clinic:vault:a"), "online", OPERATOR)
        await lifecycle.ensure(path("clinic:records:a"), "offline", OPERATOR)

        with pytest.raises(TransitionError, match="for online sealing"):
            await lifecycle.ensure(path("clinic:vault:b"), "offline", OPERATOR)
        with pytest.raises(TransitionError, match="for offline sealing"):
            await lifecycle.ensure(path("clinic:records:a"), "online", OPERATOR)

    async def test_no_key_is_made_below_what_is_suspended(self, world: World):
        """A suspended dataset refuses new keys too."""
        lifecycle = world.worker.lifecycle
        await lifecycle.ensure(path(KEY), "offline", OPERATOR)
        await lifecycle.change(path("clinic:records"), "suspend", below=True, actor=OPERATOR)

        with pytest.raises(TransitionError, match="suspended"):
            await lifecycle.ensure(path("clinic:records:2026-12"), "offline", OPERATOR)

    async def test_an_existing_key_is_not_made_again(self, world: World):
        """`create` says to rotate."""
        await world.worker.lifecycle.create(path(KEY), "offline", OPERATOR)

        with pytest.raises(KeyExistsError, match="rotate"):
            await world.worker.lifecycle.create(path(KEY), "offline", OPERATOR)

    async def test_a_path_that_only_stood_for_others_can_get_keys(self, world: World):
        """A dataset that was made implicitly gets a second version when it is created."""
        lifecycle = world.worker.lifecycle
        await lifecycle.ensure(path(KEY), "offline", OPERATOR)
        await lifecycle.create(path("clinic:records"), "offline", OPERATOR)

        versions = world.worker.projection.registry.versions(path("clinic:records"))
        assert [(version.state, len(version.keys)) for version in versions] == [
            (State.DEPRECATED, 0),
            (State.ACTIVE, 2),
        ]


class TestChanging:
    """Rotation, suspension, destruction."""

    async def test_rotation_is_one_record_for_both_versions(self, world: World):
        """The old version is deprecated and the new one active in the same moment."""
        await world.worker.lifecycle.create(path(KEY), "offline", OPERATOR)
        changed = await world.worker.lifecycle.rotate(path(KEY), OPERATOR)

        record = (await world.records("key.lifecycle"))[-1]
        assert record["_i"] == changed.record
        assert record["moves"] == {f"key:{KEY}:v1": 2, f"key:{KEY}:v2": 1}

    async def test_children_are_listed_instead_of_shut_by_accident(self, world: World):
        """Without `below` nothing changes, and the answer names what lies below."""
        await world.worker.lifecycle.create(path(KEY), "offline", OPERATOR)

        with pytest.raises(TransitionError, match="2026-11"):
            await world.worker.lifecycle.change(
                path("clinic:records"), "suspend", below=False, actor=OPERATOR
            )
        assert len(await world.records("key.lifecycle")) == 1

    async def test_suspension_of_many_keys_is_chunked_top_down(self, world: World):
        """What stands above is shut first, so nothing below is open for a moment longer."""
        lifecycle = world.worker.lifecycle
        for number in range(60):
            await lifecycle.create(path(f"clinic:records:e{number}"), "online", OPERATOR)
        changed = await lifecycle.change(
            path("clinic:records"), "suspend", below=True, actor=OPERATOR
        )

        assert len(changed.versions) == 61
        records = [item for item in await world.records("key.lifecycle") if item["op"] == "suspend"]
        assert records[0]["keys"][0]["path"] == "clinic:records"
        assert len(records) == 2

    async def test_destruction_waits_and_can_be_cancelled(self, world: World):
        """A scheduled destruction states its date, and cancelling restores the state before."""
        lifecycle, clock = world.worker.lifecycle, world.parts.clock
        await lifecycle.create(path(KEY), "offline", OPERATOR)
        scheduled = await lifecycle.change(path(KEY), "destroy", below=False, actor=OPERATOR)
        swept = await lifecycle.sweep(OPERATOR)
        cancelled = await lifecycle.change(path(KEY), "cancel", below=False, actor=OPERATOR)

        assert scheduled.versions[0].destroy_at == pytest.approx(clock() + 90 * 86_400, abs=5)
        assert swept is None
        assert cancelled.versions[0].state is State.ACTIVE
        assert cancelled.versions[0].destroy_at is None

    async def test_what_is_due_is_recorded_and_then_destroyed(self, world: World):
        """After its date the version is recorded as destroyed, and its material is gone."""
        world.now.ahead = 0
        lifecycle = world.worker.lifecycle
        await lifecycle.create(path(KEY), "offline", OPERATOR)
        await lifecycle.change(path(KEY), "destroy", below=False, actor=OPERATOR)
        world.now.ahead = 91 * 86_400
        changed = await lifecycle.sweep(OPERATOR)

        assert changed is not None
        assert changed.versions[0].state is State.DESTROYED
        assert await world.custody.handles() == []
        with pytest.raises(TransitionError):
            await lifecycle.change(path(KEY), "cancel", below=False, actor=OPERATOR)

    async def test_material_that_could_not_be_recorded_is_collected(self, world: World):
        """What was made here and never recorded goes after an hour, and nothing else."""
        lifecycle = world.worker.lifecycle
        await lifecycle.create(path(KEY), "offline", OPERATOR)
        ledger, lifecycle._ledger = lifecycle._ledger, Silent()  # noqa: SLF001 it does not answer
        with pytest.raises(LedgerUnavailableError):
            await lifecycle.create(path("clinic:lost"), "online", OPERATOR)
        lifecycle._ledger = ledger  # noqa: SLF001 as before
        await lifecycle.collect()
        young = len(await world.custody.handles())
        world.now.ahead = 3700
        await lifecycle.collect()

        assert (young, len(await world.custody.handles())) == (3, 2)

    async def test_creating_does_not_lift_a_suspension(self, world: World):
        """A path that stands for others keeps its state until it is resumed."""
        lifecycle = world.worker.lifecycle
        await lifecycle.create(path(KEY), "offline", OPERATOR)
        await lifecycle.change(path("clinic:records"), "suspend", below=True, actor=OPERATOR)

        with pytest.raises(TransitionError, match="resume it"):
            await lifecycle.create(path("clinic:records"), "offline", OPERATOR)

    async def test_no_key_is_made_below_what_is_suspended_meanwhile(self, world: World):
        """Making a key takes its time; what was judged before it must still hold."""
        lifecycle = world.worker.lifecycle
        await lifecycle.create(path(KEY), "offline", OPERATOR)
        make = world.custody.make

        async def slowly(label, algorithms):
            await lifecycle.change(path("clinic:records"), "suspend", below=True, actor=OPERATOR)
            return await make(label, algorithms)

        world.custody.make = slowly
        with pytest.raises(KeyExistsError):
            await lifecycle.create(path("clinic:records:next"), "offline", OPERATOR)
        assert world.worker.projection.registry.newest(path("clinic:records:next")) is None

    async def test_material_of_another_deployment_is_left_alone(self, world: World):
        """Two deployments may share a token; neither collects the other's keys."""
        [other] = await world.custody.make("envelock-other~clinic:x:v1@00", ["aes:256"])
        await world.worker.lifecycle.collect()
        world.now.ahead = 7200
        await world.worker.lifecycle.collect()
        await world.worker.lifecycle.sweep(OPERATOR)

        assert await world.custody.handles() == [other.handle]

    async def test_cancelling_a_suspended_key_leaves_it_suspended(self, world: World):
        """What was set aside comes back in order."""
        lifecycle = world.worker.lifecycle
        await lifecycle.create(path(KEY), "offline", OPERATOR)
        for change, expected in (
            ("suspend", State.SUSPENDED),
            ("destroy", State.PENDING_DESTRUCTION),
            ("cancel", State.SUSPENDED),
            ("resume", State.ACTIVE),
        ):
            changed = await lifecycle.change(path(KEY), change, below=False, actor=OPERATOR)

            assert changed.versions[0].state is expected

    async def test_two_operators_at_once_make_one_change(self, world: World):
        """Rotating twice at the same moment gives one new version, or two in sequence."""
        await world.worker.lifecycle.create(path(KEY), "offline", OPERATOR)
        other = await another_worker(world)
        results = await asyncio.gather(
            world.worker.lifecycle.rotate(path(KEY), OPERATOR),
            other.lifecycle.rotate(path(KEY), OPERATOR),
            return_exceptions=True,
        )

        kinds = sorted(type(result).__name__ for result in results)
        assert kinds == ["Changed", "KeyExistsError"]
        assert len(await world.custody.handles()) == 4


class TestRegistry:
    """The projection of the ledger's topic."""

    def test_refuses_a_gap_in_the_records_of_a_version(self):
        """A number that does not follow its predecessor means a record is missing."""
        registry = Registry()
        registry.apply(1, record(1))

        with pytest.raises(RegistryError, match="gap"):
            registry.apply(2, record(3))

    def test_refuses_moves_that_it_does_not_state(self):
        """A record moves exactly the fences of the versions that it lists."""
        fields = record(1) | {"moves": {"key:other:v1": 1}}

        with pytest.raises(RegistryError, match="other fences"):
            Registry().apply(1, fields)

    def test_reading_a_record_again_changes_nothing(self):
        """A page that overlaps is harmless."""
        registry = Registry()
        registry.apply(1, record(1))
        registry.apply(1, record(1))

        assert registry.next_index == 2

    def test_a_version_is_judged_by_everything_above(self):
        """The newest version of each path above must be usable."""
        registry = Registry()
        registry.apply(1, record(1, path="acme"))
        registry.apply(2, record(1, path="acme:a"))
        registry.apply(3, record(2, path="acme", state="suspended", was=["active"]))
        standing = registry.standing(KeyId.parse("acme:a:v1"))

        assert standing is not None
        assert standing.refusal == "key acme:v1 suspended"
        assert standing.fences == {"key:acme:v1": 2, "key:acme:a:v1": 1}


class TestTemplates:
    """Which path a new object uses."""

    def test_renders_tenant_dataset_and_epoch(self):
        """The epoch is in UTC."""
        found = render(
            "{tenant}:{dataset}:{epoch:%Y-%m}",
            {"tenant": "acme", "dataset": "patients"},
            now=1_795_000_000,
            pseudonym_key=bytes(32),
        )

        assert str(found) == "acme:patients:2026-11"

    def test_personal_values_never_stand_in_a_path(self):
        """Subjects render as pseudonyms: equal for equal subjects, and not theirs."""
        rendered = {
            str(
                render(
                    "{tenant}:{subject}",
                    {"tenant": "acme", "subject": name},
                    now=0,
                    pseudonym_key=bytes(32),
                )
            )
            for name in ("ada", "ada", "bob")
        }

        assert len(rendered) == 2
        assert not any("ada" in text or "bob" in text for text in rendered)

    def test_a_missing_tenant_is_the_word_default(self):
        """Deployments without tenants have one."""
        assert str(render("{tenant}", {}, now=0, pseudonym_key=bytes(32))) == "default"

    @pytest.mark.parametrize("dataset", ["", "a:b", "a_b", "a%b", "v1", "ü", "a b", "a\nb"])
    def test_a_dataset_cannot_break_out_of_its_part(self, dataset: str):
        """Separators, wildcards, versions and control characters are refused."""
        values = {"tenant": "acme", "dataset": dataset}

        with pytest.raises(KeyIdError):
            render("{tenant}:{dataset}", values, now=0, pseudonym_key=bytes(32))

    @pytest.mark.parametrize("template", ["{tenant}:{nope}", "{dataset}:{tenant}", "x{tenant}"])
    def test_refuses_templates_that_hide_the_tenant(self, template: str):
        """The tenant is always the first part."""
        with pytest.raises(TemplateError):
            check_template(template)


def test_no_state_leads_out_of_destruction():
    """A destroyed version stays destroyed, and every state can be suspended or destroyed."""
    assert FOLLOWERS[State.DESTROYED] == frozenset()
    assert all(
        State.SUSPENDED in following and State.PENDING_DESTRUCTION in following
        for state, following in FOLLOWERS.items()
        if state not in {State.SUSPENDED, State.PENDING_DESTRUCTION, State.DESTROYED}
    )


class Silent:
    """A ledger that does not answer."""

    async def append(self, _entries):
        raise LedgerUnavailableError("silent")


def record(number: int, path: str = "acme", state: str = "active", was: list[str] = []):  # noqa: B006 never changed
    """The fields of a key record."""
    version = {
        "path": path,
        "version": 1,
        "number": number,
        "state": state,
        "wraps": "offline",
        "custody": "local",
        "keys": [],
        "was": was,
    }
    return {"keys": [version], "moves": {f"key:{path}:v1": number}}

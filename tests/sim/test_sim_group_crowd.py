"""Up to a thousand members of one group: whatever happens to them and to their coordinator, three things hold.

No partition has two owners in one generation; what was acknowledged as committed is never older again; and in the end
every member that lives is in the group, which is Stable and owns every partition once. The first two are asserted with
every answer (group_crowd.py), the third here. A failing seed is the number in the test's name.
"""

import os

import pytest
import trio
from group_crowd import REBALANCE_MS, SESSION_MS, Member, World
from trio.testing import MockClock

SEEDS = 500 if os.environ.get("CI") == "true" else 60
CROWDED_SEEDS = 20
"""Every so many seeds have a thousand members; the others a few dozens, and more of what goes wrong."""
CROWD = 1_000
STORM_MS = 12_000
CALM_MS = 3 * REBALANCE_MS + 2 * SESSION_MS
"""Time enough for all sessions of the dead to end, for a rebalance to wait for them, and for another one."""


def something_happens(world: World) -> None:
    chance = world.random
    what = chance.random()
    member = chance.choice(world.members)
    if what < 0.25:
        Member(world, f"late-{len(world.trace)}", None)
    elif what < 0.45 and len(world.members) > 2:
        member.dies()
    elif what < 0.60 and len(world.members) > 2:
        member.leaves()
    elif what < 0.80:
        member.is_restarted()
    elif what < 0.90:
        world.lag_ms = chance.choice([0, 0, 20, 400, 7_000])
    else:
        world.appends_fail = True
        world.after(chance.randint(1, 1_000), lambda: setattr(world, "appends_fail", False))


async def history(world: World, members: int) -> None:
    chance = world.random
    for number in range(members):
        Member(world, f"member-{number}", f"static-{number}" if chance.random() < 0.3 else None)
    lives = chance.randint(1, 3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run)
        for _ in range(lives):
            for _ in range(chance.randint(1, 8)):
                world.after(chance.randint(0, STORM_MS), something_happens, world)
            # A life may be as short as to end in the middle of the first rebalance.
            await world.run_coordinator(chance.randint(500, 14_000))
            await trio.sleep(chance.uniform(0, 2))
        nursery.start_soon(world.run_coordinator, 10 * CALM_MS)
        await trio.sleep((STORM_MS + 1_000) / 1_000)
        world.lag_ms = 0
        await trio.sleep(CALM_MS / 1_000)
        nursery.cancel_scope.cancel()


def run(seed: int) -> World:
    members = CROWD if seed % CROWDED_SEEDS == 0 else 1 + seed % 40
    world = World(seed, members)
    trio.run(history, world, members, clock=MockClock(autojump_threshold=0))
    return world


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_crowd_comes_to_rest_with_one_owner_of_each_partition_and_no_commit_lost(seed: int) -> None:
    world = run(seed)
    assert all(member.is_stable for member in world.members)
    assert len({member.generation_id for member in world.members}) == 1
    assert sorted(each for member in world.members for each in member.owned) == list(range(world.partitions))


def test_the_same_seed_makes_the_same_history() -> None:
    assert run(7).trace == run(7).trace
    assert run(7).trace != run(27).trace

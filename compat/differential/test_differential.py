"""kpy answers every request of every scenario as Apache Kafka 3.9.1 does, but for the deviations that are meant."""

import pytest

from compat.differential import (
    scenarios_cluster,
    scenarios_configs,
    scenarios_connections,
    scenarios_fetch,
    scenarios_groups,
    scenarios_list_offsets,
    scenarios_log_dirs,
    scenarios_offsets,
    scenarios_produce,
    scenarios_topics,
    scenarios_transactions,
)
from compat.differential.deviations import DEVIATIONS
from compat.differential.runner import Pair, report
from compat.differential.scenario import Scenario

SCENARIOS: list[Scenario] = [
    *scenarios_connections.SCENARIOS,
    *scenarios_cluster.SCENARIOS,
    *scenarios_topics.SCENARIOS,
    *scenarios_configs.SCENARIOS,
    *scenarios_produce.SCENARIOS,
    *scenarios_fetch.SCENARIOS,
    *scenarios_list_offsets.SCENARIOS,
    *scenarios_log_dirs.SCENARIOS,
    *scenarios_groups.SCENARIOS,
    *scenarios_offsets.SCENARIOS,
    *scenarios_transactions.SCENARIOS,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.name for scenario in SCENARIOS])
def test_kpy_answers_like_apache_kafka(pair: Pair, scenario: Scenario) -> None:
    index = SCENARIOS.index(scenario)
    found = [
        difference
        for version in pair.versions_of(scenario)
        for difference in pair.run(scenario, version, f"{index}-v{version}")
    ]
    unexpected = [difference for difference in found if not any(each.covers(difference) for each in DEVIATIONS)]
    assert not unexpected, f"\n{report(unexpected)}"
    unseen = [
        deviation
        for deviation in DEVIATIONS
        if deviation.scenario == scenario.name and not any(map(deviation.covers, found))
    ]
    assert not unseen, f"these deviations are gone, remove them: {unseen}"


def test_scenarios_have_names_of_their_own() -> None:
    names = [scenario.name for scenario in SCENARIOS]
    assert sorted(set(names)) == sorted(names)

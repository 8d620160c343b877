"""A broker's configuration: defaults, layers, the checks between keys, and dynamic updates."""

from pathlib import Path

import pytest

from kpy.config import BrokerConfig, ConfigError, Setting, has_effect, validate_overrides
from kpy.errors import ApiError, ErrorCode
from kpy.listeners import Endpoint

COMPOSE_FILE_OF_THE_CONTAINER_IMAGE = {
    "node.id": "1",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PLAINTEXT_HOST:PLAINTEXT",
    "advertised.listeners": "PLAINTEXT_HOST://localhost:9092,PLAINTEXT://broker:19092",
    "process.roles": "broker,controller",
    "controller.quorum.voters": "1@broker:29093",
    "listeners": "CONTROLLER://:29093,PLAINTEXT_HOST://:9092,PLAINTEXT://:19092",
    "inter.broker.listener.name": "PLAINTEXT",
    "controller.listener.names": "CONTROLLER",
    "cluster.id": "4L6g3nShT-eMCtK--X86sw",
    "offsets.topic.replication.factor": "1",
    "log.dirs": "/tmp/kraft-combined-logs",
}


def refusal(**settings: str) -> str:
    """The line that an operator reads for these settings; double underscores stand for dots."""
    with pytest.raises(ConfigError) as caught:
        BrokerConfig.of({key.replace("__", "."): text for key, text in settings.items()}, "a file:1")
    return str(caught.value)


def test_without_settings_it_is_a_broker_for_one_developer():
    config = BrokerConfig({}, {"log.dir": "/home/u/.local/state/kpy"})
    assert config.broker_id == 1
    assert config.endpoints == config.advertised_endpoints == (Endpoint("PLAINTEXT", "localhost", 9092),)
    assert config.data_dirs == (Path("/home/u/.local/state/kpy"),)
    assert config.offsets_topic_replication_factor == config.transaction_state_log_min_isr == 1
    assert config.group_initial_rebalance_delay_ms == 0
    assert config.auto_create_topics_enable
    assert config.cluster_id is None
    assert config.warnings == ()


def test_every_key_is_there_by_its_name_in_kafka():
    config = BrokerConfig.of({"log.cleanup.policy": "compact, delete", "my.own": "x"})
    assert config.log_cleanup_policy == config.get("log.cleanup.policy") == ("compact", "delete")
    assert config.get("num.io.threads") == 8
    assert config.get("my.own") == "x"
    assert config.get("no.such.key") is None


def test_a_configuration_does_not_change():
    config = BrokerConfig.of({})
    with pytest.raises(AttributeError, match="does not change"):
        config.num_partitions = 7
    assert config.num_partitions == 1


def test_an_invalid_value_is_told_with_its_key_and_origin():
    assert refusal(log__segment__bytes="5") == "log.segment.bytes=5: value must be at least 14 (a file:1)"
    assert refusal(num__partitions="x") == "num.partitions=x: not a number of type INT (a file:1)"


def test_an_invalid_value_of_one_listener_is_told_with_the_listeners_key():
    with pytest.raises(ConfigError, match=r"^listener.name.plaintext.ssl.client.auth=x: string must be one of: req"):
        BrokerConfig.of({"listener.name.plaintext.ssl.client.auth": "x"})


def test_an_unknown_key_is_kept_with_a_warning():
    config = BrokerConfig({"num.partiton": Setting("4", "KAFKA_NUM_PARTITON"), "rsm.config.a": Setting("b", "")})
    assert config.warnings == (
        "unknown key num.partiton, kept without effect; did you mean num.partitions? (KAFKA_NUM_PARTITON)",
    )
    assert config.get("num.partiton") == "4"


def test_a_compose_file_for_the_container_image_works_as_it_is():
    config = BrokerConfig.of(COMPOSE_FILE_OF_THE_CONTAINER_IMAGE)
    assert config.endpoints == (Endpoint("PLAINTEXT_HOST", "", 9092), Endpoint("PLAINTEXT", "", 19092))
    assert config.advertised({}, "container") == {"PLAINTEXT_HOST": ("localhost", 9092), "PLAINTEXT": ("broker", 19092)}
    assert config.inter_broker_listener == "PLAINTEXT"
    assert config.cluster_id == "4L6g3nShT-eMCtK--X86sw"
    ignored = "controller.listener.names, controller.quorum.voters, process.roles"
    assert config.warnings == (f"kpy needs no KRaft controller and ignores {ignored}",)


def test_a_quorum_of_several_nodes_is_refused():
    several = COMPOSE_FILE_OF_THE_CONTAINER_IMAGE | {"controller.quorum.voters": "1@a:9093,2@b:9093,3@c:9093"}
    with pytest.raises(ConfigError, match="kpy takes no part in KRaft quorums"):
        BrokerConfig.of(several)
    assert "only a controller" in refusal(process__roles="controller")


def test_broker_id_and_node_id_are_two_names_of_one_number():
    assert BrokerConfig.of({"node.id": "7"}).broker_id == 7
    assert BrokerConfig.of({"broker.id": "7"}).get("node.id") == 7
    assert "must be the same as broker.id=1" in refusal(broker__id="1", node__id="2")


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"broker.id": "-1"}, "broker.id=-1: must be at least 0"),
        ({"broker.id": "1001"}, "broker.id=1001: must not be greater than reserved.broker.max.id=1000"),
        ({"log.roll.ms": "0"}, "log.roll.ms=0: must be at least 1"),
        ({"log.roll.jitter.ms": "-1"}, "log.roll.jitter.ms=-1: must be at least 0"),
        ({"log.retention.ms": "0"}, "log.retention.ms=0: must be -1 (no limit) or at least 1"),
        ({"log.dirs": "/a,,/b"}, "log.dirs=/a,,/b: must be one or more directories"),
        ({"log.cleaner.threads": "128"}, "log.cleaner.dedupe.buffer.size=134217728: must be more than 1 MiB"),
        ({"replica.fetch.wait.max.ms": "30001"}, "must not be greater than replica.socket.timeout.ms=30000"),
        ({"queued.max.request.bytes": "10"}, "must be -1 or at least socket.request.max.bytes"),
        ({"max.connections.per.ip": "0"}, "can be 0 only together with max.connections.per.ip.overrides"),
        ({"max.connections.per.ip.overrides": "host"}, "'host' is not of the form host:count"),
        ({"connections.max.idle.ms": "100"}, "must be less than connections.max.idle.ms=100"),
        ({"group.coordinator.rebalance.protocols": "consumer"}, "cannot leave out classic"),
        ({"controller.listener.names": "C"}, "controller.listener.names=C: must be empty without process.roles"),
        ({"listeners": "EXTERNAL://:9092"}, "listener.security.protocol.map has no security protocol"),
        ({"listeners": " "}, "there must be at least one listener"),
        ({"listeners": "SASL_SSL://:9093,PLAINTEXT://:9092"}, "protocol SASL_SSL is not available in this version"),
        ({"listeners": "SSL://:9093,PLAINTEXT://:9092", "security.inter.broker.protocol": "SSL",
          "zookeeper.connect": "zk:2181"}, "speak PLAINTEXT among themselves"),
        ({"listeners": "PLAINTEXT://0.0.0.0:9092"}, "clients cannot connect to 0.0.0.0"),
        ({"listeners": "PLAINTEXT://:9092", "advertised.listeners": "SSL://h:1"}, "listeners has no SSL, only PLAIN"),
        ({"inter.broker.listener.name": "OTHER"}, "must be one of the advertised listeners: PLAINTEXT"),
        ({"inter.broker.listener.name": "PLAINTEXT", "security.inter.broker.protocol": "PLAINTEXT"},
         "cannot be set together with security.inter.broker.protocol"),
        ({"control.plane.listener.name": "PLAINTEXT"}, "must be an advertised listener other than"),
    ],
)  # fmt: skip
def test_values_that_do_not_go_together_stop_the_start(settings: dict[str, str], line: str):
    with pytest.raises(ConfigError) as caught:
        BrokerConfig.of(settings)
    assert line in str(caught.value)


def test_a_broker_by_itself_may_have_nothing_but_a_listener_of_ssl():
    config = BrokerConfig.of({"listeners": "IN://:9093", "inter.broker.listener.name": "IN",
                              "listener.security.protocol.map": "IN:SSL"})  # fmt: skip
    assert config.security_protocols == {"IN": "SSL"}


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("authorizer.class.name", "kafka.security.authorizer.AclAuthorizer"),
        ("create.topic.policy.class.name", "org.example.Policy"),
        ("client.quota.callback.class", "org.example.Quota"),
        ("remote.log.storage.system.enable", "true"),
        ("config.providers", "env"),
        ("ssl.engine.factory.class", "org.example.Factory"),
    ],
)
def test_what_cannot_be_honoured_is_refused_and_not_ignored(key: str, text: str):
    with pytest.raises(ConfigError) as caught:
        BrokerConfig.of({key: text})
    assert caught.value.key == key


def test_what_is_refused_may_be_set_to_its_default_or_emptied():
    BrokerConfig.of({"zookeeper.connect": "", "authorizer.class.name": "", "remote.log.storage.system.enable": "false"})


def test_a_broker_is_on_zookeeper_unless_it_has_roles_of_kraft():
    assert not BrokerConfig.of({}).on_zookeeper
    assert not BrokerConfig.of({"zookeeper.connect": " "}).on_zookeeper
    assert BrokerConfig.of({"zookeeper.connect": "zk1:2181,zk2:2181/kafka"}).on_zookeeper
    both = BrokerConfig.of({"zookeeper.connect": "zk:2181", "process.roles": "broker"})
    assert not both.on_zookeeper
    assert "zookeeper.connect is ignored beside process.roles, as in Apache Kafka" in both.warnings


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"zookeeper.connect": "zk:port"}, "'zk:port' is not of the form host:port"),
        ({"zookeeper.connect": "zk:2181,,b:2181"}, "must be host:port"),
        ({"zookeeper.connect": "zk:2181//kafka"}, "is not a path of ZooKeeper's"),
        ({"zookeeper.session.timeout.ms": "0"}, "must be at least 1"),
        (
            {"zookeeper.set.acl": "true"},
            "needs somebody to be for ZooKeeper: a login in java.security.auth.login.config, or",
        ),
        (
            {"zookeeper.ssl.client.enable": "true", "zookeeper.ssl.truststore.location": "trust.jks"},
            "zookeeper.ssl.truststore.location=trust.jks: kpy reads PEM files",
        ),
        ({"zookeeper.ssl.client.enable": "true", "zookeeper.ssl.crl.enable": "true"}, "has been revoked"),
    ],
)
def test_what_zookeeper_could_not_be_reached_with_stops_the_start(settings: dict[str, str], line: str):
    with pytest.raises(ConfigError) as caught:
        BrokerConfig.of({"zookeeper.connect": "localhost:2181", **settings})
    assert line in str(caught.value)


def test_more_replicas_than_one_broker_can_hold_are_lowered_with_a_warning():
    config = BrokerConfig.of({"offsets.topic.replication.factor": "3", "transaction.state.log.min.isr": "2"})
    assert (config.offsets_topic_replication_factor, config.transaction_state_log_min_isr) == (1, 1)
    assert config.warnings[0] == "offsets.topic.replication.factor=3 needs more than the one broker there is; 1 is used"
    assert len(config.warnings) == 2


def test_advertised_listeners_alone_open_the_same_ports_on_every_interface():
    config = BrokerConfig.of({"advertised.listeners": "PLAINTEXT://broker.example.com:9094"})
    assert config.endpoints == (Endpoint("PLAINTEXT", "0.0.0.0", 9094),)
    assert config.advertised_endpoints == (Endpoint("PLAINTEXT", "broker.example.com", 9094),)


def test_ephemeral_ports_and_missing_hosts_are_filled_in_once_bound():
    config = BrokerConfig.of({"listeners": "PLAINTEXT://:0"})
    assert config.advertised({"PLAINTEXT": 40123}, "my-host") == {"PLAINTEXT": ("my-host", 40123)}


def test_dynamic_configs_layer_over_the_file_and_a_brokers_own_over_those_of_all():
    config = BrokerConfig.of({"log.cleaner.threads": "2", "num.partitions": "9"})
    changed = config.with_overrides(
        {"log.cleaner.threads": "3", "message.max.bytes": "5"}, {"log.cleaner.threads": "4"}
    )
    assert (changed.log_cleaner_threads, changed.message_max_bytes, changed.num_partitions) == (4, 5, 9)
    assert changed.with_overrides({}, {}).log_cleaner_threads == 2
    assert config.log_cleaner_threads == 2


def test_a_dynamic_config_wins_over_the_static_synonyms_of_its_key():
    config = BrokerConfig.of({"log.retention.minutes": "1"}).with_overrides({"log.retention.ms": "5000"}, {})
    assert config.log_retention_ms == 5000
    assert config.log_retention_minutes is None


def test_stored_dynamic_configs_that_are_invalid_are_left_out():
    stored = {"num.partitions": "9", "log.cleaner.threads": "many", "log.segment.bytes": "100"}
    config = BrokerConfig.of({}).with_overrides(stored, {})
    assert (config.num_partitions, config.log_cleaner_threads, config.log_segment_bytes) == (1, 1, 100)


@pytest.mark.parametrize(
    ("overrides", "per_broker", "message"),
    [
        ({"num.partitions": "2"}, True, "Cannot update these configs dynamically: Set(num.partitions)"),
        ({"listeners": "A://:1"}, True, "Cannot update these configs dynamically: Set(listeners)"),
        ({"advertised.listeners": "A://h:1"}, True,
         "Cannot update these configs dynamically: Set(advertised.listeners)"),
        ({"ssl.keystore.location": "x"}, True, "These security configs can be dynamically updated only per-listener "
         "using the listener prefix: Set(ssl.keystore.location)"),
        ({"log.cleaner.threads": "abc"}, True,
         "Invalid value abc for configuration log.cleaner.threads: Not a number of type INT"),
        ({"log.cleaner.threads": "-1"}, False,
         "Invalid value -1 for configuration log.cleaner.threads: Value must be at least 0"),
        ({"ssl.client.auth": "none"}, False, "Cannot update these configs at default cluster level, "
         "broker id must be specified: Set(ssl.client.auth)"),
        ({"listener.name.x.ssl.key.password": "p"}, False, "Cannot update these configs at default cluster level, "
         "broker id must be specified: Set(listener.name.x.ssl.key.password)"),
        ({"log.retention.ms": "0"}, False,
         "Invalid value 0 for configuration log.retention.ms: must be -1 (no limit) or at least 1"),
    ],
)  # fmt: skip
def test_dynamic_configs_are_refused_in_kafkas_words(overrides: dict[str, str], per_broker: bool, message: str):
    with pytest.raises(ApiError) as caught:
        validate_overrides(BrokerConfig.of({}), overrides, per_broker=per_broker)
    assert (caught.value.code, caught.value.message) == (ErrorCode.INVALID_REQUEST, message)


def test_dynamic_configs_may_be_keys_of_nobody_and_of_listeners():
    overrides = {"foo.bar": "1", "listener.name.x.max.connections": "5", "log.segment.bytes": "100"}
    validate_overrides(BrokerConfig.of({}), overrides, per_broker=False)


def test_keys_without_effect_can_be_told_from_others():
    assert has_effect("num.partitions")
    assert has_effect("listeners")
    assert has_effect("listener.name.out.ssl.keystore.location")
    assert not has_effect("num.io.threads")
    assert not has_effect("no.such.key")

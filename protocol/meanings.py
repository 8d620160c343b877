"""What each field means, in a line: the comment beside its declaration or, if it has none, what its name always means.

`python -m protocol.generate` puts these lines into kpy/wire, where whoever writes a handler sees them.
"""

import ast
import io
import tokenize
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType

BY_NAME: Mapping[str, str] = {
    # Errors, time and quotas.
    "acknowledge_error_code": "0 if what came with the fetch was acknowledged",
    "acknowledge_error_message": "the same for people, null if there is none",
    "error_code": "0 for success",
    "error_message": "the error for people, null if there is none",
    "batch_index_error_message": "what is wrong with that record",
    "throttle_time_ms": "how long the client is to be silent, because of a quota",
    "timeout_ms": "how long the broker may take",
    "task_offset_interval_ms": "how often the client is to report its tasks' offsets",
    "push_interval_ms": "how often the client is to send metrics",
    # Topics and partitions.
    "assigned_partitions": "those that are the member's, by topic",
    "current_voters": "replicas that elect the leader",
    "endpoints": "where the broker is reached, by listener",
    "index": "of the partition, within its topic",
    "isr": "broker ids of the in-sync replicas",
    "last_known_elr": "the eligible leaders before the last one was lost",
    "leader": "broker id, -1 for nobody",
    "leader_epoch": "rises with each change of leader",
    "log_dir": "absolute path of the directory",
    "log_start_offset": "the first that still exists",
    "name": "of the topic",
    "new_isr": "broker ids that the leader wants in sync",
    "new_isr_with_epochs": "the same, each with its broker's epoch",
    "num_partitions": "how many it has",
    "observers": "replicas that follow and do not vote",
    "partition": "index of the partition, within its topic",
    "partition_data": "by partition",
    "partition_errors": "by partition",
    "partition_id": "index of the partition, within its topic",
    "partition_ids": "indexes within the topic",
    "partition_index": "of the partition, within its topic",
    "partition_indexes": "within the topic",
    "partition_responses": "by partition",
    "partition_result": "by partition",
    "partition_states": "by partition",
    "partitions": "of this topic",
    "replica_nodes": "broker ids of all replicas, the preferred leader first",
    "replica_id": "broker id",
    "replica_directory_id": "of the log directory that holds the replica",
    "replicas": "broker ids of all replicas, the preferred leader first",
    "replication_factor": "replicas of each partition",
    "topic": "name of the topic",
    "topic_configs": "that the topic is to have",
    "topic_data": "by topic",
    "topic_id": "stays the same for the life of the topic, and is never used again",
    "topic_name": "of the topic",
    "topic_names": "of the topics",
    "topic_partitions": "partitions, by topic",
    "topic_results": "by topic",
    "topic_states": "by topic",
    "topics": "by topic",
    "ungrouped_partition_states": "partitions, each with its topic",
    "ungrouped_partitions": "partitions, each with its topic",
    # Offsets and records.
    "committed_offset": "of the next record to be read",
    "commit_timestamp": "when it was committed, ms since 1970",
    "end_offset": "one past the last record",
    "fetch_offset": "of the first record wanted",
    "first_offset": "of the first record, inclusive",
    "high_watermark": "one past the last record that every in-sync replica has",
    "max_bytes": "of records, all partitions together",
    "max_num_offsets": "how many offsets to return",
    "min_bytes": "to wait for, until the time is up",
    "offset": "position in the partition",
    "records": "record batches",
    "acknowledgement_batches": "ranges of offsets and what became of them",
    "acquired_records": "ranges of offsets that are this member's for a while",
    "start_offset": "where the group is to begin",
    # Brokers.
    "broker_id": "of the broker",
    "brokers": "that live",
    "cluster_id": "of the cluster, null if the broker knows none",
    "controller_id": "broker id of the controller, -1 for nobody",
    "host": "name or address to connect to",
    "host_name": "name or address to connect to",
    "id": "of the broker",
    "include_fenced_brokers": "brokers that are registered, but do not serve",
    "is_fenced": "whether it is registered, but does not serve",
    "listeners": "where the node is reached",
    "live_brokers": "all that are registered",
    "node_id": "broker id",
    "nodes": "voters and observers with their listeners",
    "port": "to connect to",
    "rack": "where the broker is, null if that is not configured",
    "rack_id": "where the member is, null if that is not configured",
    "replica_state": "who fetches, if it is a follower",
    "request_api_key": "which API this is",
    "request_api_version": "of the body that follows",
    "v0_host": "name or address to connect to",
    "v0_port": "to connect to",
    "voter_id": "node id of the controller",
    # Groups.
    "active_partitions": "that are processed there",
    "active_tasks": "that the member processes",
    "assignment": "what the member is to read, opaque to the broker",
    "assignor_name": "the algorithm that assigns partitions",
    "client_host": "address that the member joined from",
    "client_id": "which the member chose for itself",
    "coordinators": "one for each key",
    "copartition_groups": "source topics that need equal numbers of partitions",
    "epoch": "rises with each change",
    "generation": "number of the last completed rebalance",
    "generation_id": "of the rebalance that is being completed",
    "group": "id of the group",
    "group_id": "of the group",
    "group_ids": "of the groups",
    "group_state": "as people read it, such as Stable",
    "group_type": "classic, consumer, share or streams",
    "groups": "by group",
    "groups_names": "group ids",
    "member_assignment": "what the member reads, opaque to the broker",
    "member_id": "of the member",
    "members": "of the group",
    "metadata": "of the protocol, opaque to the broker",
    "protocol_type": "what kind of member the group has, such as consumer",
    "server_assignor": "the broker's algorithm that the member prefers, null for the default",
    "standby_partitions": "that are kept ready there",
    "standby_tasks": "that the member keeps ready",
    "subscribed_topic_names": "topics that the member reads",
    # Streams groups.
    "partitions_by_user_endpoint": "which member's endpoint has which partitions",
    "repartition_sink_topics": "that the subtopology writes for others to read",
    "repartition_source_topics": "that the subtopology reads and others write",
    "source_topics": "that the subtopology reads",
    "state_changelog_topics": "that back the subtopology's state stores",
    "status_code": "which of the known conditions it is",
    "status_detail": "the condition for people",
    "subtopologies": "parts that can be processed apart from each other",
    "subtopology_id": "of the part of the topology",
    "topology": "what the application computes, null if the member did not say",
    "topology_epoch": "of the topology that the member runs",
    # Producers and transactions.
    "active_producers": "producers with state in this partition",
    "coordinator_epoch": "of the transaction coordinator, which rises with each change of leader",
    "last_sequence": "of the last record, -1 if there is none",
    "markers": "by transaction",
    "ongoing_txn_producer_epoch": "of the transaction that is being decided, -1 for none",
    "producer_epoch": "rises when a producer takes over its id from an older one",
    "producer_id": "of the producer",
    "results_by_partition": "by partition",
    "results_by_topic_v3_and_below": "by topic",
    "results_by_transaction": "by transaction",
    "partition_error_code": "0 if the partition is part of the transaction",
    "transaction_last_update_timestamp_ms": "of this state, ms since 1970",
    "transaction_state": "as people read it, such as Ongoing",
    "transaction_states": "by transaction",
    "transactional_id": "of the producer, whatever process it is",
    "transactional_ids": "of the producers",
    "v3_and_below_producer_epoch": "rises when a producer takes over its id from an older one",
    "v3_and_below_producer_id": "of the producer",
    "v3_and_below_topics": "to be part of the transaction",
    "v3_and_below_transactional_id": "of the producer",
    # Configs and features.
    "allow_auto_topic_creation": "whether topics that do not exist are to be created",
    "allow_downgrade": "whether the level may become lower",
    "config_resources": "things that have configs",
    "configs": "by name",
    "documentation": "what the config is for, null if that was not asked for",
    "feature": "name of the feature",
    "feature_updates": "by feature",
    "include_documentation": "whether to say what each config is for",
    "include_synonyms": "whether to list every place where the value could come from",
    "is_default": "whether nobody has set it",
    "max_version": "the highest that is supported",
    "max_version_level": "the highest that the cluster has agreed on",
    "min_version": "the lowest that is supported",
    "min_version_level": "the lowest that the cluster has agreed on",
    "read_only": "whether it cannot be changed while the broker runs",
    "resource_name": "of the topic, broker, group or whatever the type says",
    "resource_type": "2 topic, 4 broker, 8 broker logger, 16 client metrics, 32 group",
    "resources": "by resource",
    "value": "of the config or quota",
    # Quotas.
    "components": "each a condition that the entity has to meet",
    "entity": "whom the quota is for: a user, a client id, an address, or a combination",
    "entries": "by entity",
    "key": "name that the value goes by",
    "ops": "changes, by quota",
    "remove": "whether the quota is to go, so that the default holds",
    "values": "of the quotas, by name",
    # Security.
    "acls": "of this resource",
    "creations": "ACLs to add",
    "credential_infos": "by mechanism",
    "deletions": "credentials to remove",
    "expiry_timestamp": "when the token is void unless it is renewed, ms since 1970",
    "filter_results": "by filter, in their order",
    "filters": "what matches any of them is meant",
    "include_authorized_operations": "whether to say what the client may do with it",
    "include_cluster_authorized_operations": "whether to say what the client may do with the cluster",
    "include_topic_authorized_operations": "whether to say what the client may do with each topic",
    "issue_timestamp": "when the token was made, ms since 1970",
    "issue_timestamp_ms": "when the token was made, ms since 1970",
    "iterations": "rounds of hashing that the credential took",
    "matching_acls": "those that were deleted",
    "mechanism": "name of the SASL mechanism, such as PLAIN",
    "owner_principal_name": "whom the token is for, null for the requester",
    "principal": "whom the ACL is for, as type:name",
    "principal_name": "name of a user",
    "principal_type": "what kind of principal, such as User",
    "renewers": "who may renew the token besides the owner",
    "salt": "random bytes that the password was hashed with",
    "token_id": "names the token, and is its user name in SCRAM",
    "tokens": "by token",
    "upsertions": "credentials to add or replace",
    "user": "name of the user",
    # APIs and telemetry.
    "api_key": "number of the API",
    "api_keys": "APIs that are served, with their versions",
    "client_instance_id": "of the client process, given by the broker",
    "client_software_version": "of the client library",
    "compression_type": "codec of the metrics: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd",
    "telemetry_max_bytes": "the most that one push may hold",
    # Answers by what was asked.
    "dirs": "directories, each with what is to go there",
    "replica_election_results": "by topic",
    "responses": "by what was asked for",
    "results": "by what was asked for",
}
"""What a name means wherever it stands without a comment."""

_MAKERS = {"struct", "request", "response", "header", "record"}


@cache
def comments_in(module: ModuleType) -> dict[tuple[str, str], str]:
    """The comments of a module's fields, by struct or message and field."""
    path = getattr(module, "__file__", None)
    source = Path(path).read_text(encoding="utf-8") if path else ""
    beside, above = _comments(source)
    found: dict[tuple[str, str], str] = {}
    for owner, argument, field in _fields(ast.parse(source)):
        lines = range(argument.lineno, (argument.end_lineno or argument.lineno) + 1)
        texts = [*_block_above(above, argument.lineno), *(beside[line] for line in lines if line in beside)]
        if texts:
            found[owner, field] = " ".join(texts)
    return found


def meaning(module: ModuleType, owner: str, field: str) -> str:
    """What a field of a struct or message means, "" if nobody has said so."""
    return comments_in(module).get((owner, field)) or BY_NAME.get(field, "")


def _comments(source: str) -> tuple[dict[int, str], dict[int, str]]:
    """The comments by line: those beside code, and those that have a line of their own."""
    beside: dict[int, str] = {}
    above: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            kept = above if token.line.lstrip().startswith("#") else beside
            kept[token.start[0]] = token.string.removeprefix("#").strip()
    return beside, above


def _block_above(above: Mapping[int, str], line: int) -> list[str]:
    texts: list[str] = []
    while (line := line - 1) in above:
        texts.insert(0, above[line])
    return texts


def _fields(tree: ast.Module) -> Iterator[tuple[str, ast.expr, str]]:
    """Every declared field: the struct or message that it is in, the argument that declares it, its name."""
    for statement in tree.body:
        if not isinstance(statement, ast.Assign) or not isinstance(statement.value, ast.Call):
            continue
        call, [target] = statement.value, statement.targets
        if not isinstance(call.func, ast.Name) or call.func.id not in _MAKERS or not isinstance(target, ast.Name):
            continue
        # A struct says its name; a message has that of its variable.
        first = call.args[0]
        owner = str(first.value) if call.func.id == "struct" and isinstance(first, ast.Constant) else target.id
        for argument in call.args:
            for node in ast.walk(argument):
                if isinstance(node, ast.BinOp) and isinstance(node.left, ast.Constant):
                    yield owner, argument, str(node.left.value)

"""A crowd of group members in one process: how long a broker takes to bring them all into one generation.

Each member has a connection of its own and speaks the classic protocol: JoinGroup, SyncGroup, then heartbeats, by which
it learns that it is to join again. They are driven by one selector, in Python, so part of every figure is the crowd's
own time; it is the same for both brokers.
"""

import selectors
import socket
import time
from types import ModuleType, TracebackType
from typing import Any, Self

from bench.brokers import BrokerProcess
from bench.link import FIND_COORDINATOR_VERSION, Link, frame
from bench.programs import WorkFailedError
from kpy.errors import ErrorCode
from kpy.wire import find_coordinator, heartbeat, join_group, leave_group, list_groups, offset_commit, sync_group

JOIN_VERSION = 7
SYNC_VERSION = 5
HEARTBEAT_VERSION = 4
LEAVE_VERSION = 4
LIST_GROUPS_VERSION = 4
OFFSET_COMMIT_VERSION = 8
HEARTBEAT_S = 0.25
"""Far shorter than a client's 3 s, which would be most of what is measured."""
SESSION_MS = 60_000
TIMEOUT_S = 120.0
METADATA = bytes(64)
"""As long as the subscription of a consumer of a topic or two."""


class Member:
    """One connection, with at most one request under way."""

    def __init__(self, crowd: "Crowd") -> None:
        self._crowd = crowd
        self.socket = socket.create_connection(("127.0.0.1", crowd.port))
        self.socket.setblocking(False)
        self.member_id = ""
        self.generation_id = -1
        self.is_assigned = False
        self.next_heartbeat = 0.0
        self._led: list[str] = []
        self._asked: tuple[ModuleType, int] | None = None
        self._received = b""
        self._unsent = b""

    @property
    def is_idle(self) -> bool:
        return self._asked is None

    def ask(self, api: ModuleType, message: Any, version: int) -> None:
        self._asked = api, version
        self._unsent += frame(api, message, version)
        self.flush()

    def flush(self) -> None:
        if self._unsent:
            try:
                self._unsent = self._unsent[self.socket.send(self._unsent) :]
            except BlockingIOError:
                return

    def is_readable(self) -> None:
        data = self.socket.recv(1 << 20)
        if not data:
            raise WorkFailedError("the broker closed a member's connection")
        self._received += data
        if len(self._received) < 4 or len(self._received) < 4 + int.from_bytes(self._received[:4]):
            return
        answer, self._received = self._received, b""
        assert self._asked is not None
        (api, version), self._asked = self._asked, None
        self._is_told(api, api.decode_response(memoryview(answer)[9:], version))

    def join(self) -> None:
        self.is_assigned = False
        protocols = [join_group.JoinGroupRequestProtocol("range", METADATA)]
        message = join_group.JoinGroupRequest(
            self._crowd.group, SESSION_MS, SESSION_MS, self.member_id, None, "consumer", protocols
        )
        self.ask(join_group, message, JOIN_VERSION)

    def heartbeat(self) -> None:
        self.next_heartbeat = time.monotonic() + HEARTBEAT_S
        message = heartbeat.HeartbeatRequest(self._crowd.group, self.generation_id, self.member_id)
        self.ask(heartbeat, message, HEARTBEAT_VERSION)

    def leave(self) -> None:
        members = [leave_group.MemberIdentity(self.member_id)]
        self.ask(leave_group, leave_group.LeaveGroupRequest(self._crowd.group, members=members), LEAVE_VERSION)

    def _is_told(self, api: ModuleType, answer: Any) -> None:
        error = answer.error_code
        if api is join_group and error == ErrorCode.MEMBER_ID_REQUIRED:
            self.member_id = answer.member_id
            self.join()
        elif api is join_group and not error:
            self.member_id, self.generation_id = answer.member_id, answer.generation_id
            assignments = [sync_group.SyncGroupRequestAssignment(each.member_id, METADATA) for each in answer.members]
            message = sync_group.SyncGroupRequest(
                self._crowd.group, self.generation_id, self.member_id, None, "consumer", "range", assignments
            )
            self.ask(sync_group, message, SYNC_VERSION)
        elif api is sync_group and not error:
            self.is_assigned = True
            self.next_heartbeat = time.monotonic() + HEARTBEAT_S
        elif error == ErrorCode.REBALANCE_IN_PROGRESS:
            self.join()
        elif error:
            raise WorkFailedError(f"{api.__name__} is answered with error {error}")


class Crowd:
    """The members of one group."""

    def __init__(self, port: int, group: str, size: int) -> None:
        self.port = port
        self.group = group
        find_coordinator_of(port, group)
        self._selector = selectors.DefaultSelector()
        self.members = [Member(self) for _ in range(size)]
        for member in self.members:
            self._selector.register(member.socket, selectors.EVENT_READ, member)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._selector.close()
        for member in self.members:
            member.socket.close()

    def all_join(self) -> float:
        """All ask to join at once; the seconds until all have an assignment of one generation."""
        started = time.monotonic()
        for member in self.members:
            member.join()
        return self._until_stable() - started

    def one_leaves(self) -> float:
        """The seconds from the leave of one member until all others have an assignment of the next generation."""
        leaver = self.members.pop()
        while not leaver.is_idle:
            self._step()
        generation_id = self.members[0].generation_id
        started = time.monotonic()
        leaver.leave()
        while not leaver.is_idle or any(member.generation_id == generation_id for member in self.members):
            self._step()
        self._selector.unregister(leaver.socket)
        leaver.socket.close()
        return self._until_stable() - started

    def _until_stable(self) -> float:
        deadline = time.monotonic() + TIMEOUT_S
        while not self._is_stable():
            self._step()
            if time.monotonic() > deadline:
                raise WorkFailedError(f"{len(self.members)} members are not in one generation within {TIMEOUT_S} s")
        return time.monotonic()

    def _is_stable(self) -> bool:
        generation_id = self.members[0].generation_id
        return all(member.is_assigned and member.generation_id == generation_id for member in self.members)

    def _step(self) -> None:
        for key, _ in self._selector.select(HEARTBEAT_S / 10):
            key.data.is_readable()
        now = time.monotonic()
        for member in self.members:
            member.flush()
            if member.is_idle and member.is_assigned and member.next_heartbeat <= now:
                member.heartbeat()


def find_coordinator_of(port: int, group: str) -> None:
    """Returns when the group has a coordinator: the first question creates the topic it lives in.

    Apache Kafka names the coordinator a moment before it is one, so a member that does not exist is asked about too.
    """
    deadline = time.monotonic() + TIMEOUT_S
    request = find_coordinator.FindCoordinatorRequest(group)
    nobody = heartbeat.HeartbeatRequest(group, 0, "nobody")
    with Link(port) as link:
        while (
            link.call(find_coordinator, request, FIND_COORDINATOR_VERSION).error_code
            or link.call(heartbeat, nobody, HEARTBEAT_VERSION).error_code != ErrorCode.UNKNOWN_MEMBER_ID
        ):
            if time.monotonic() > deadline:
                raise WorkFailedError(f"group {group} gets no coordinator")
            time.sleep(0.05)


def commit_request(group: str, topic: str, offset: int) -> offset_commit.OffsetCommitRequest:
    """What somebody who is nobody's member commits for partition 0."""
    partition = offset_commit.OffsetCommitRequestPartition(partition_index=0, committed_offset=offset)
    topics = [offset_commit.OffsetCommitRequestTopic(name=topic, partitions=[partition])]
    return offset_commit.OffsetCommitRequest(group, topics=topics)


def load_time(broker: BrokerProcess, groups: int) -> float:
    """Seconds from the exec of a restarted broker until it has loaded all groups."""
    broker.start()
    with Link(broker.port) as link:
        link.create_topic("standing")
    commit_for_groups(broker.port, "standing", groups)
    broker.stop()
    start_s = broker.start()
    started = time.monotonic()
    wait_for_groups(broker.port, groups)
    return start_s + time.monotonic() - started


def commit_for_groups(port: int, topic: str, groups: int) -> None:
    # More than enough names to ask about each of the fifty partitions that groups may live in.
    for number in range(min(groups, 500)):
        find_coordinator_of(port, f"group-{number}")
    with Link(port) as link:
        for number in range(groups):
            request = commit_request(f"group-{number}", topic, number)
            answer = link.call(offset_commit, request, OFFSET_COMMIT_VERSION)
            if answer.topics[0].partitions[0].error_code:
                raise WorkFailedError(f"a commit is answered with error {answer.topics[0].partitions[0].error_code}")


def wait_for_groups(port: int, groups: int) -> None:
    """Returns when the broker lists that many groups, and says that it has loaded all there are.

    For the list it is asked only then: to make and to read one of thousands takes time of its own.
    """
    deadline = time.monotonic() + TIMEOUT_S
    none = list_groups.ListGroupsRequest(states_filter=["Dead"])
    with Link(port) as link:
        while True:
            answer = link.call(list_groups, none, LIST_GROUPS_VERSION)
            if not answer.error_code:
                answer = link.call(list_groups, list_groups.ListGroupsRequest(), LIST_GROUPS_VERSION)
            if not answer.error_code and len(answer.groups) >= groups:
                return
            if time.monotonic() > deadline:
                raise WorkFailedError(f"{len(answer.groups)} of {groups} groups are listed")
            time.sleep(0.005)

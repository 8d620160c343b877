"""The language of the replica transcripts: runs one against a Leadership and a Following and writes down what happens.

Each line is `at <ms>  <command>`, and after `->` what followed. Broker 1 leads, or is followed: a transcript is about a
leader with its followers, or about a follower with its log.

The leader's side:
    lead [epoch=1] [replicas=1,2,3] [isr=1,2,3] [version=0]     append <log end offset>      alive <broker ids>
    fetch <broker> <offset>                 expand and high watermark follow, as in the broker
    shrink                                  settle [isr=1,2] [version=1] [epoch=1]           refuse <error>
    produce                                 what acks=all is told before it appends, and once it is committed
    config min_isr=2 lag=30000              (first lines only)

The follower's side (its log is `log`):
    log end=10 [start=0] [watermark=5] [epochs=0@0,2@6]
    follow [epoch=3]      leave      request       disconnect      session-error <error>
    throttle <bytes a second>     its replica is throttled from now on; what it appends counts
    answer [records=5] [watermark=7] [start=0] [diverging=2@6] [error=...] [session=77]      offsets <start> <end>
"""

import re
from dataclasses import dataclass, field
from typing import Any

from kpy.errors import ApiError, ErrorCode
from kpy.metadata.image import PartitionImage
from kpy.replica.follower import Append, Following, Limits, StartAnew, Truncate
from kpy.replica.leader import IsrChange, Leadership
from kpy.replication_quota import ALL_REPLICAS, ReplicationQuota
from kpy.storage.log_config import LogConfig
from kpy.wire.fetch import EpochEndOffset, FetchableTopicResponse, FetchResponse, PartitionData

COMMAND_COLUMNS = 58
TOPIC_ID = b"0123456789abcdef"
KEY = ("t", 0)
LEADER, FOLLOWER = 1, 2


@dataclass
class FakeEpochs:
    """The leader epochs of a log as pairs of epoch and start offset."""

    entries: list[tuple[int, int]] = field(default_factory=list)

    @property
    def latest_epoch(self) -> int:
        return self.entries[-1][0] if self.entries else -1

    def end_offset_for(self, epoch: int, log_end_offset: int) -> tuple[int, int]:
        below = [each for each, _ in self.entries if each <= epoch]
        above = [start for each, start in self.entries if each > epoch]
        if not self.entries or epoch > self.latest_epoch:
            return -1, -1
        return (below[-1] if below else epoch), (above[0] if above else log_end_offset)


@dataclass
class FakeLog:
    log_start_offset: int = 0
    log_end_offset: int = 0
    high_watermark: int = 0
    leader_epochs: FakeEpochs = field(default_factory=FakeEpochs)
    topic_id: bytes = TOPIC_ID
    config: LogConfig = field(default_factory=LogConfig)


class Transcript:
    """One run. `run` returns the transcript as it turned out."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.min_isr = 1
        self.lag_ms = 30_000
        self.leadership: Leadership | None = None
        self.end_offset = 0
        self.high_watermark = 0
        self.alive = {1, 2, 3}
        self.change: IsrChange | None = None
        self.log = FakeLog()
        self.quota = ReplicationQuota()
        self.following = Following(FOLLOWER, 5, Limits(), self.quota)
        self.session_id = 0

    def run(self, text: str) -> str:
        lines: list[str] = []
        for line in text.splitlines():
            match = re.match(r"at (\d+) +(.*?) *(?:->.*)?$", line)
            if match is None and not line.lstrip().startswith("->"):
                lines.append(line)
                if line.startswith("config "):
                    options = _options(line.split()[1:])
                    self.min_isr = int(options.get("min_isr", "1"))
                    self.lag_ms = int(options.get("lag", "30000"))
            elif match is not None and match[2]:
                self.now_ms = int(match[1])
                left = f"at {self.now_ms:<8}{match[2]}"
                for happened in self.carry_out(match[2]) or [""]:
                    lines.append(f"{left:<{COMMAND_COLUMNS}} -> {happened}" if happened else left)
                    left = ""
        return "\n".join(lines) + "\n"

    def carry_out(self, command: str) -> list[str]:
        verb, *words = command.split()
        handler: Any = getattr(self, "do_" + verb.replace("-", "_"))
        try:
            return handler([word for word in words if "=" not in word], _options(words))
        except ApiError as error:
            return [error.code.name]

    # -- the leader --------------------------------------------------------------------------------------------------

    def lead(self) -> Leadership:
        assert self.leadership is not None
        return self.leadership

    def is_alive(self, broker_id: int) -> bool:
        return broker_id in self.alive

    def do_lead(self, words: list[str], options: dict[str, str]) -> list[str]:
        image = PartitionImage(
            0,
            LEADER,
            int(options.get("epoch", "1")),
            _ids(options.get("replicas", "1,2,3")),
            _ids(options.get("isr", "1,2,3")),
            int(options.get("version", "0")),
        )
        self.leadership = Leadership(
            image,
            LEADER,
            log_end_offset=self.end_offset,
            now_ms=self.now_ms,
            lag_time_max_ms=self.lag_ms,
            before=self.leadership,
        )
        return self.advanced()

    def do_append(self, words: list[str], options: dict[str, str]) -> list[str]:
        self.end_offset = int(words[0])
        return self.advanced() if self.leadership is not None else []

    def do_alive(self, words: list[str], options: dict[str, str]) -> list[str]:
        self.alive = set(_ids(words[0]))
        return []

    def do_fetch(self, words: list[str], options: dict[str, str]) -> list[str]:
        replica, offset = int(words[0]), int(words[1])
        self.lead().fetched(replica, offset, 0, self.end_offset, self.now_ms)
        return [*self.proposed(self.lead().expand(replica, self.high_watermark, self.is_alive)), *self.advanced()]

    def do_shrink(self, words: list[str], options: dict[str, str]) -> list[str]:
        return self.proposed(self.lead().shrink(self.end_offset, self.now_ms)) or ["nothing"]

    def do_settle(self, words: list[str], options: dict[str, str]) -> list[str]:
        assert self.change is not None
        lead = self.lead()
        counts = lead.settle(
            self.change,
            int(options.get("epoch", str(lead.leader_epoch))),
            _ids(options["isr"]),
            int(options["version"]),
        )
        return (
            [f"isr {_text(lead.isr)} version {lead.partition_epoch}", *self.advanced()] if counts else ["passed over"]
        )

    def do_refuse(self, words: list[str], options: dict[str, str]) -> list[str]:
        assert self.change is not None
        lead = self.lead()
        again = lead.refused(self.change, ErrorCode[words[0]])
        pending = "nothing pending" if lead.pending is None else f"pending {_text(lead.pending.isr)}"
        return [f"{'send again' if again else 'not again'}; {pending}"]

    def do_produce(self, words: list[str], options: dict[str, str]) -> list[str]:
        lead = self.lead()
        before, after = lead.refusal(self.min_isr), lead.verdict(self.min_isr)
        return [f"before the append {before.name}, once committed {after.name}"]

    def proposed(self, change: IsrChange | None) -> list[str]:
        if change is None:
            return []
        self.change = change
        return [f"propose isr {_text(change.isr)}; maximal {_text(sorted(change.maximal_isr))}"]

    def advanced(self) -> list[str]:
        before = self.high_watermark
        self.high_watermark = self.lead().high_watermark(
            before, self.end_offset, self.min_isr, self.now_ms, self.is_alive
        )
        return [f"high watermark {self.high_watermark}"] if self.high_watermark != before else []

    # -- the follower ------------------------------------------------------------------------------------------------

    def do_log(self, words: list[str], options: dict[str, str]) -> list[str]:
        epochs = [each.split("@") for each in options.get("epochs", "").split(",") if each]
        self.log.log_end_offset = int(options["end"])
        self.log.log_start_offset = int(options.get("start", "0"))
        self.log.high_watermark = int(options.get("watermark", "0"))
        self.log.leader_epochs.entries = [(int(epoch), int(start)) for epoch, start in epochs]
        return []

    def do_follow(self, words: list[str], options: dict[str, str]) -> list[str]:
        return self.steps(self.following.follow(KEY, self.log, int(options.get("epoch", "1"))))

    def do_leave(self, words: list[str], options: dict[str, str]) -> list[str]:
        self.following.leave(KEY)
        return []

    def do_throttle(self, words: list[str], options: dict[str, str]) -> list[str]:
        self.log.config = LogConfig(follower_replication_throttled_replicas=ALL_REPLICAS)
        self.quota.bytes_per_second = int(words[0])
        return []

    def do_request(self, words: list[str], options: dict[str, str]) -> list[str]:
        request = self.following.next_request(self.now_ms)
        if request is None:
            ready_ms = self.following.next_ready_ms(self.now_ms)
            return ["nothing until the controller speaks" if ready_ms is None else f"nothing until {ready_ms}"]
        asked = [
            f"offset {each.fetch_offset} after epoch {each.last_fetched_epoch}, in epoch {each.current_leader_epoch}"
            for topic in request.topics
            for each in topic.partitions
        ]
        forgotten = ["forget it" for topic in request.forgotten_topics_data for _ in topic.partitions]
        session = f"session {request.session_id}/{request.session_epoch}"
        return ["; ".join([session, *(asked or ["nothing new"]), *forgotten])]

    def do_answer(self, words: list[str], options: dict[str, str]) -> list[str]:
        self.session_id = int(options.get("session", str(self.session_id)))
        data = PartitionData(0, ErrorCode[options.get("error", "NONE")])
        data.high_watermark = int(options.get("watermark", "0"))
        data.log_start_offset = int(options.get("start", "0"))
        count = int(options.get("records", "0"))
        data.records = memoryview(bytes(count))
        if "diverging" in options:
            epoch, end = options["diverging"].split("@")
            data.diverging_epoch = EpochEndOffset(int(epoch), int(end))
        partitions = [] if words == ["empty"] else [data]
        response = FetchResponse(
            session_id=self.session_id, responses=[FetchableTopicResponse("", TOPIC_ID, partitions)]
        )
        return self.steps(self.following.answered(response, self.now_ms))

    def do_session_error(self, words: list[str], options: dict[str, str]) -> list[str]:
        return self.steps(self.following.answered(FetchResponse(error_code=ErrorCode[words[0]]), self.now_ms))

    def do_disconnect(self, words: list[str], options: dict[str, str]) -> list[str]:
        self.following.disconnected(self.now_ms)
        return []

    def do_offsets(self, words: list[str], options: dict[str, str]) -> list[str]:
        epoch = int(options.get("epoch", "1"))
        return self.steps(self.following.offsets(KEY, epoch, int(words[0]), int(words[1])))

    def steps(self, steps: list[Any]) -> list[str]:
        """What is done to the log; each record is a byte here and has an offset of its own."""
        happened: list[str] = []
        log = self.log
        for step in steps:
            if isinstance(step, Append):
                count = len(step.records or b"")
                log.log_end_offset += count
                self.quota.record(count, self.now_ms)
                log.high_watermark = max(log.high_watermark, min(step.high_watermark, log.log_end_offset))
                happened.append(f"append {count}, watermark {step.high_watermark}, start {step.log_start_offset}")
            elif isinstance(step, Truncate):
                log.log_end_offset = min(log.log_end_offset, step.offset)
                entries = log.leader_epochs.entries
                log.leader_epochs.entries = [each for each in entries if each[1] < log.log_end_offset]
                happened.append(f"truncate to {step.offset}")
            elif isinstance(step, StartAnew):
                log.log_start_offset = log.log_end_offset = step.offset
                log.leader_epochs.entries = []
                happened.append(f"start anew at {step.offset}")
            else:
                happened.append("ask where the leader's log begins and ends")
        return happened


def _options(words: list[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words if "=" in word)


def _ids(text: str) -> tuple[int, ...]:
    return tuple(int(each) for each in text.split(","))


def _text(ids: Any) -> str:
    return ",".join(map(str, ids))

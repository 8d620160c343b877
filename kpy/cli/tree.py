"""A decoded frame as a tree for people: API and field names, names of error codes, ids as text, batches summarised.

    <- Metadata response v12, correlation id 2, 95 bytes
       |- brokers
       |  `- [0] node_id=1 host="localhost" port=9092 rack=null
       `- topics ...

(drawn with box characters). What a struct holds directly stands in its line; arrays of structs, structs and records are
branches. Fields that the version lacks are left out, and so are tagged ones that were not sent. Secrets are hidden, and
control characters are escaped, so that a message cannot play with the terminal.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from kpy import ids
from kpy.cli.frames import Decoded, Frame
from kpy.cli.record_text import RecordText
from kpy.cli.style import Style, escaped, preview, quoted
from kpy.errors import ApiError, ErrorCode, WireError
from kpy.records import legacy
from kpy.records.batch import MAGIC, MAGIC_POSITION, BatchHeader, check_crc, iter_records, read_header
from kpy.wire.apis import APIS
from kpy.wire.consumer_protocol import decode_consumer_protocol_assignment, decode_consumer_protocol_subscription
from kpy.wire.layouts import Form, Layouts
from kpy.wire.primitives import Message, is_secret

MAX_DECOMPRESSED_BYTES: Final = 64 * 1024 * 1024

EMBEDDED: Final = {
    ("JoinGroupRequestProtocol", "metadata"): decode_consumer_protocol_subscription,
    ("JoinGroupResponseMember", "metadata"): decode_consumer_protocol_subscription,
    ("DescribedGroupMember", "member_metadata"): decode_consumer_protocol_subscription,
    ("DescribedGroupMember", "member_assignment"): decode_consumer_protocol_assignment,
    ("SyncGroupRequestAssignment", "assignment"): decode_consumer_protocol_assignment,
    ("SyncGroupResponse", "assignment"): decode_consumer_protocol_assignment,
    ("MemberMetadata", "subscription"): decode_consumer_protocol_subscription,
    ("MemberMetadata", "assignment"): decode_consumer_protocol_assignment,
}
"""Fields of bytes that hold a message of their own, if the group is one of consumers."""


TRANSACTION_STATES: Final = (
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
)


def transaction_state(status: int) -> str:
    """The name of a status in the records of __transaction_state."""
    return TRANSACTION_STATES[status] if 0 <= status < len(TRANSACTION_STATES) else "unknown"


class Node(NamedTuple):
    """A line of the tree and those below it."""

    line: str
    branches: "list[Node]"


class Printer:
    """Makes trees. `show_records` expands batches into their records."""

    def __init__(self, style: Style, *, show_records: bool = False) -> None:
        self._style = style
        self._show_records = show_records
        self._text = RecordText(style)
        self._group_type = ""
        """The protocol type of the group that is being printed, if it was sent."""

    def lines(self, frame: Frame, decoded: Decoded, prefix: str = "") -> Iterator[str]:
        """The lines of one frame. `prefix` goes in front of the first: when, and between whom."""
        style = self._style
        arrow = style.request("→") if frame.is_request else style.response("←")
        parts = [style.title(self._title(frame))]
        if frame.correlation_id != -1 or frame.api is not None:
            parts.append(style.faint(f"correlation id {frame.correlation_id}"))
        if decoded.client_id is not None:
            parts.append(style.faint(f"client id {quoted(decoded.client_id)}"))
        parts.append(style.faint(f"{len(frame.data):,} bytes"))
        yield f"{style.faint(prefix)}{arrow} {', '.join(parts)}"
        branches: list[Node] = []
        if decoded.message is not None and decoded.layouts is not None:
            self._group_type = ""
            line, branches = self._fields(decoded.message, decoded.layouts, decoded.version, of_root=True)
            if line:
                branches.insert(0, Node(line, []))
        if decoded.problem:
            branches.append(Node(style.problem(f"! {escaped(decoded.problem)}"), []))
        yield from drawn(branches, "  ", style)

    def message(self, label: str, message: Message, layouts: Layouts, version: int) -> Node:
        """A message that is not in a frame: what a coordinator keeps in its records."""
        self._group_type = ""
        line, branches = self._fields(message, layouts, version)
        return Node(f"{label} {line}", branches)

    def _title(self, frame: Frame) -> str:
        kind = "request" if frame.is_request else "response"
        if frame.api is None:
            return f"{kind} of an unknown API"
        return f"{frame.api.name} {kind} v{frame.version}"

    def _fields(
        self, message: Message, layouts: Layouts, version: int, *, of_root: bool = False
    ) -> tuple[str, list[Node]]:
        """What stands in the line of a struct, and its branches. At the root every field is a branch."""
        layout = layouts.by_version[f"{type(message).__name__}.{version}"]
        self._group_type = getattr(message, "protocol_type", None) or self._group_type
        inline: list[str] = []
        branches: list[Node] = []
        for name, form in zip(message.__slots__, layout.forms, strict=True):
            value: Any = getattr(message, name)
            if form.code == "-" or (form.tag >= 0 and value == getattr(type(message)(), name)):
                continue
            label = self._style.field(name)
            if value and is_secret(message, name):
                shown = self._style.faint("<hidden>")
            elif isinstance(value, Message) or (form.code == "T" and value):
                branches.append(self._structs(label, value, form, layouts))
                continue
            elif form.code == "r" and value:
                branches.append(self._records(label, value))
                continue
            elif form.code == "y" and value and (embedded := self._embedded(label, message, name, value)):
                branches.append(embedded)
                continue
            else:
                shown = self._value(name, value, form)
            if of_root:
                branches.append(Node(f"{label}: {shown}", []))
            else:
                inline.append(f"{label}={shown}")
        return " ".join(inline), branches

    def _structs(self, label: str, value: Any, form: Form, layouts: Layouts) -> Node:
        version = int(form.struct.rpartition(".")[2])
        if not form.is_array:
            line, branches = self._fields(value, layouts, version)
            return Node(f"{label}: {line}" if line else label, branches)
        elements: list[Node] = []
        for index, each in enumerate(value):
            line, branches = self._fields(each, layouts, version)
            elements.append(Node(f"{self._style.faint(f'[{index}]')} {line}", branches))
        return Node(label, elements)

    def _value(self, name: str, value: Any, form: Form) -> str:
        if form.is_array and value is not None:
            element = form._replace(is_array=False)
            return f"[{', '.join(self._value(name, each, element) for each in value)}]"
        if value is None:
            return "null"
        if name.endswith("error_code") and form.code == "h":
            return self._error_code(value)
        if name == "api_key" and value in APIS:
            return f"{value} {APIS[value].name}"
        if name == "transaction_status" and form.code == "b":
            return f"{value} {transaction_state(value)}"
        match form.code:
            case "z":
                return "true" if value else "false"
            case "s":
                return self._style.text(quoted(value))
            case "y" | "r":
                return preview(value)
            case "u":
                return "none" if value == ids.ZERO_ID else self._style.text(ids.to_text(value))
            case "T":
                return "[]"
            case _:
                return str(value)

    def _error_code(self, value: int) -> str:
        if value == 0:
            return "0"
        try:
            return self._style.problem(f"{value} {ErrorCode(value).name}")
        except ValueError:
            return self._style.problem(f"{value} (unknown)")

    def _embedded(self, label: str, owner: Message, name: str, value: bytes) -> Node | None:
        """What a consumer put into a field of bytes, if it can be read."""
        decode_embedded = EMBEDDED.get((type(owner).__name__, name))
        if decode_embedded is None or self._group_type not in ("consumer", ""):
            return None
        try:
            message = decode_embedded(value)
        except WireError:
            return None
        layouts = _consumer_protocol_layouts()
        version = int.from_bytes(value[:2])
        line, branches = self._fields(message, layouts, version)
        return Node(f"{label}: {type(message).__name__} v{version} {line}", branches)

    # Records

    def _records(self, label: str, records: memoryview) -> Node:
        batches: list[Node] = []
        pos = 0
        try:
            while (size_bytes := legacy.entry_size(records, pos)) is not None:
                entry = records[pos : pos + size_bytes]
                pos += size_bytes
                batches.append(self._batch(entry) if entry[MAGIC_POSITION] == MAGIC else self._message(entry))
        except ApiError as error:
            batches.append(Node(self._style.problem(f"! at byte {pos}: {escaped(str(error))}"), []))
        else:
            if pos < len(records):
                # A broker sends as many bytes as were asked for, and the client ignores what is incomplete.
                batches.append(Node(self._style.faint(f"{len(records) - pos:,} bytes of an incomplete batch"), []))
        return Node(f"{label}: {len(records):,} bytes", batches)

    def _batch(self, batch: memoryview) -> Node:
        header = read_header(batch)
        line = f"{self._text.batch(header, is_crc_right=check_crc(batch))} {self._style.faint(f'{len(batch):,} bytes')}"
        return Node(line, list(self._record_lines(batch, header)) if self._show_records or header.is_control else [])

    def _record_lines(self, batch: memoryview, header: BatchHeader) -> Iterator[Node]:
        try:
            for record in iter_records(batch, MAX_DECOMPRESSED_BYTES):
                yield Node(self._text.control(record) if header.is_control else self._text.record(record), [])
        except ApiError as error:
            yield Node(self._style.problem(f"! {escaped(str(error))}"), [])

    def _message(self, entry: memoryview) -> Node:
        """A message of magic 0 or 1, or a compressed set of them."""
        line = self._text.message(entry)
        branches: list[Node] = []
        if self._show_records:
            try:
                branches.extend(Node(self._text.record(each), []) for each in legacy.iter_messages(entry, len(entry)))
            except ApiError as error:
                branches.append(Node(self._style.problem(f"! {escaped(str(error))}"), []))
        return Node(line, branches)


def _consumer_protocol_layouts() -> Layouts:
    from kpy.wire import consumer_protocol

    return consumer_protocol.LAYOUTS


def drawn(nodes: list[Node], indent: str, style: Style) -> Iterator[str]:
    """The lines of nodes and their branches."""
    for i, (line, branches) in enumerate(nodes):
        is_last = i == len(nodes) - 1
        yield f"{style.faint(indent + ('└─ ' if is_last else '├─ '))}{line}"
        yield from drawn(branches, indent + ("   " if is_last else "│  "), style)

"""What `kpy dump-log` finds in files, as lines for people or as JSON, an object a line."""

import json
import os
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from kpy.cli.arguments import Options
from kpy.cli.coordinator_records import (
    OFFSETS_TOPIC,
    TRANSACTIONS_TOPIC,
    CoordinatorRecord,
    as_json,
    decode_coordinator_record,
)
from kpy.cli.log_files import Batch, Damage, Entry, Item, LogFile, Message, records_in, records_of
from kpy.cli.record_text import RecordText, codec_name, control_type, last_sequence, text_of
from kpy.cli.style import Style, escaped, quoted, time_text
from kpy.cli.tree import Printer, drawn
from kpy.errors import ApiError
from kpy.records.batch import MAGIC_POSITION, BatchHeader, Record
from kpy.storage.fs import File
from kpy.storage.producer_state import parse_marker


class Output:
    """What both forms have in common: which records are wanted, and whether anything was damaged."""

    def __init__(self, out: TextIO, style: Style, options: Options) -> None:
        self._out = out
        self._style = style
        self._show_records = options.show_records
        self._decoder = options.decoder
        self._max_characters = options.max_characters
        self._file: File | None = None
        self.is_damaged = False

    def begin(self, log: LogFile) -> None:
        """The items that come now are of this file."""
        self._file = File(log.fs, log.path)

    def show(self, log: LogFile, item: Item) -> None:
        if isinstance(item, Damage):
            self.is_damaged |= not item.is_incomplete
        elif isinstance(item, Batch):
            self.is_damaged |= not item.is_crc_right
        for line in self._lines(log, item):
            print(line, file=self._out)

    def _lines(self, log: LogFile, item: Item) -> Iterable[str]:
        raise NotImplementedError

    def _records(self, item: Batch | Message) -> Iterator[Record | Damage]:
        """The records of a sound batch or message, and what kept them from being read."""
        assert self._file is not None, "begin comes first"
        if isinstance(item, Batch) and not item.is_crc_right:
            return
        try:
            yield from records_of(item, self._file) if isinstance(item, Batch) else records_in(item)
        except ApiError as error:
            self.is_damaged = True
            yield Damage(item.position, str(error))

    def _decoded(self, log: LogFile, record: Record) -> CoordinatorRecord | None:
        topic = self._decoder or log.topic
        return decode_coordinator_record(record, topic) if topic in (OFFSETS_TOPIC, TRANSACTIONS_TOPIC) else None


def _wants_records(item: Batch | Message, *, asked: bool) -> bool:
    """Control records are shown unasked: what they say is the point of their batch."""
    return asked or (isinstance(item, Batch) and item.header.is_control)


class TextOutput(Output):
    """Lines for people."""

    def __init__(self, out: TextIO, style: Style, options: Options) -> None:
        super().__init__(out, style, options)
        self._text = RecordText(style, options.max_characters)
        self._printer = Printer(style)

    def begin(self, log: LogFile) -> None:
        super().begin(log)
        of = f" of {os.path.basename(log.directory)}" if log.topic else ""
        size = log.fs.size(log.path)
        print(f"{self._style.title(escaped(log.path))}: {log.kind}{of}, {size:,} bytes", file=self._out)

    def _lines(self, log: LogFile, item: Item) -> Iterator[str]:
        match item:
            case Damage():
                at = "" if item.position is None else f" at byte {item.position}"
                yield f"  {self._style.problem(f'!{at} {escaped(item.what)}')}"
            case Entry():
                yield f"  {self._entry(item)}"
            case Batch():
                yield f"  position={item.position} {self._batch(item)}"
                yield from self._record_lines(log, item)
            case Message():
                yield f"  position={item.position} {self._text.message(item.data)}"
                yield from self._record_lines(log, item)

    def _batch(self, item: Batch) -> str:
        header = item.header
        facts = [self._text.batch(header, is_crc_right=item.is_crc_right)]
        if header.last_offset_delta == header.records_count - 1:
            facts.append(f"last_offset={header.last_offset}")
        if header.base_sequence >= 0:
            facts.append(f"last_sequence={last_sequence(header)}")
        facts.append(self._style.faint(f"crc={header.crc:#010x} {header.size_bytes:,} bytes"))
        return " ".join(facts)

    def _record_lines(self, log: LogFile, item: Batch | Message) -> Iterator[str]:
        if not _wants_records(item, asked=self._show_records):
            return
        for record in self._records(item):
            if isinstance(record, Damage):
                yield f"    {self._style.problem(f'! {escaped(record.what)}')}"
            elif isinstance(item, Batch) and item.header.is_control:
                yield f"    {self._text.control(record)}{_coordinator_epoch(item)}"
            elif (decoded := self._decoded(log, record)) is not None:
                yield from self._coordinator_lines(record, decoded)
            else:
                yield f"    {self._text.record(record)}"

    def _coordinator_lines(self, record: Record, decoded: CoordinatorRecord) -> Iterator[str]:
        style = self._style
        name = type(decoded.key).__name__.removesuffix("Key")
        key = self._printer.message(style.title(name), decoded.key, decoded.layouts, decoded.key_version)
        head = f"    offset={record.offset} timestamp={time_text(record.timestamp)} {key.line}"
        if decoded.value is None:
            yield f"{head} {style.faint('removed')}"
            return
        value = self._printer.message("->", decoded.value, decoded.layouts, decoded.value_version)
        yield f"{head} {value.line}"
        yield from drawn(value.branches, "      ", style)

    def _entry(self, entry: Entry) -> str:
        fields = " ".join(f"{self._style.field(name)}={_shown(name, value)}" for name, value in entry.fields.items())
        position = "" if entry.position is None else self._style.faint(f"byte {entry.position}: ")
        return f"{position}{entry.kind} {fields}"


def _shown(name: str, value: Any) -> str:
    if name.endswith("timestamp"):
        return time_text(value)
    return quoted(value) if isinstance(value, str) else str(value)


def _coordinator_epoch(item: Batch) -> str:
    marker = parse_marker(item.data) if item.data is not None else None
    return "" if marker is None else f" coordinator_epoch={marker.coordinator_epoch}"


class JsonOutput(Output):
    """A JSON object a line, with the file it is of."""

    def _lines(self, log: LogFile, item: Item) -> Iterator[str]:
        of_file = {"path": log.path, "position": item.position}
        match item:
            case Damage():
                yield json.dumps({"type": "damage", **of_file, "what": item.what})
            case Entry():
                yield json.dumps({"type": item.kind, **of_file, **item.fields})
            case Batch():
                yield json.dumps({"type": "batch", **of_file, **_batch_fields(item.header, item.is_crc_right)})
                yield from self._record_lines(log, item, of_file)
            case Message():
                fields = {
                    "size_bytes": len(item.data),
                    "offset": int.from_bytes(item.data[:8], signed=True),
                    "magic": item.data[MAGIC_POSITION],
                    "codec": codec_name(item.data[MAGIC_POSITION + 1]),
                }
                yield json.dumps({"type": "message", **of_file, **fields})
                yield from self._record_lines(log, item, of_file)

    def _record_lines(self, log: LogFile, item: Batch | Message, of_file: dict[str, Any]) -> Iterator[str]:
        if not _wants_records(item, asked=self._show_records):
            return
        for record in self._records(item):
            if isinstance(record, Damage):
                yield json.dumps({"type": "damage", **of_file, "what": record.what})
                continue
            fields: dict[str, Any] = {"offset": record.offset, "timestamp": record.timestamp}
            if isinstance(item, Batch) and item.header.is_control:
                marker = parse_marker(item.data) if item.data is not None else None
                fields["control"] = control_type(record)
                if marker is not None:
                    fields["coordinator_epoch"] = marker.coordinator_epoch
            elif (decoded := self._decoded(log, record)) is not None:
                fields |= _coordinator_fields(decoded)
            else:
                fields["key"] = self._content(record.key)
                fields["value"] = self._content(record.value)
                fields["headers"] = [[key, self._content(value)] for key, value in record.headers]
            yield json.dumps({"type": "record", **of_file, **fields})

    def _content(self, value: bytes | None) -> Any:
        """A string where it is text, an object with hex where not, or where it is cut."""
        if value is None:
            return None
        limit = self._max_characters or len(value)
        text = text_of(value, limit)
        cut = {"size_bytes": len(value)} if len(value) > limit else {}
        if text is None:
            return {"hex": value[:limit].hex(), **cut}
        return {"text": text, **cut} if cut else text


def _batch_fields(header: BatchHeader, is_crc_right: bool) -> dict[str, Any]:
    return {
        "size_bytes": header.size_bytes,
        "base_offset": header.base_offset,
        "last_offset": header.last_offset,
        "count": header.records_count,
        "magic": header.magic,
        "codec": codec_name(header.attributes),
        "timestamp_type": "LogAppendTime" if header.is_log_append_time else "CreateTime",
        "base_timestamp": header.base_timestamp,
        "max_timestamp": header.max_timestamp,
        "delete_horizon": header.base_timestamp if header.has_delete_horizon else None,
        "leader_epoch": header.partition_leader_epoch,
        "producer_id": header.producer_id,
        "producer_epoch": header.producer_epoch,
        "base_sequence": header.base_sequence,
        "last_sequence": last_sequence(header),
        "is_transactional": header.is_transactional,
        "is_control": header.is_control,
        "crc": header.crc,
        "is_valid": is_crc_right,
    }


def _coordinator_fields(record: CoordinatorRecord) -> dict[str, Any]:
    value = None if record.value is None else as_json(record.value, record.layouts, record.value_version)
    return {
        "kind": type(record.key).__name__.removesuffix("Key"),
        "key": as_json(record.key, record.layouts, record.key_version),
        "value": value,
    }

"""Batches, messages of old formats and records, each as a line of text."""

from typing import Final

from kpy.cli.style import SHOWN_BYTES, Style, is_text, preview, quoted, time_text
from kpy.records.batch import MAGIC_POSITION, BatchHeader, Record
from kpy.records.compression import CODEC_MASK, Codec
from kpy.storage.producer_state import MAX_SEQUENCE

SHOWN_CHARACTERS: Final = 400
"""How much of a record's key or value is shown."""

_CONTROL_TYPES: Final = {0: "abort", 1: "commit", 2: "leader change", 3: "snapshot header", 4: "snapshot footer"}


def codec_name(attributes: int) -> str:
    codec = attributes & CODEC_MASK
    return Codec(codec).name.lower() if codec < len(Codec) else str(codec)


def control_type(record: Record) -> str:
    """What a control record says: the type is the second int16 of its key."""
    type_ = int.from_bytes(record.key[2:4]) if record.key and len(record.key) >= 4 else -1
    return _CONTROL_TYPES.get(type_, f"control record of type {type_}")


def last_sequence(header: BatchHeader) -> int:
    return (header.base_sequence + header.last_offset_delta) & MAX_SEQUENCE if header.base_sequence >= 0 else -1


class RecordText:
    """Makes lines. `max_characters` bounds what is shown of a key or value; 0 is no bound."""

    def __init__(self, style: Style, max_characters: int = SHOWN_CHARACTERS) -> None:
        self._style = style
        self._max_characters = max_characters

    def batch(self, header: BatchHeader, *, is_crc_right: bool) -> str:
        facts = [
            f"base_offset={header.base_offset}",
            f"count={header.records_count}",
            f"codec={codec_name(header.attributes)}",
            f"timestamps={time_text(header.base_timestamp)}..{time_text(header.max_timestamp)}",
            f"leader_epoch={header.partition_leader_epoch}",
        ]
        if header.last_offset_delta != header.records_count - 1:
            facts.append(f"last_offset={header.last_offset}")
        if header.producer_id != -1:
            facts.append(f"producer_id={header.producer_id} producer_epoch={header.producer_epoch}")
            facts.append(f"base_sequence={header.base_sequence}")
        facts += [
            word
            for word, is_set in (
                ("transactional", header.is_transactional),
                ("control", header.is_control),
                ("log_append_time", header.is_log_append_time),
                ("delete_horizon", header.has_delete_horizon),
            )
            if is_set
        ]
        if not is_crc_right:
            facts.append(self._style.problem("CRC is wrong"))
        return f"{self._style.title('batch')} {' '.join(facts)}"

    def message(self, entry: memoryview) -> str:
        """A message of magic 0 or 1, or a compressed set of them."""
        return (
            f"{self._style.title('message')} magic={entry[MAGIC_POSITION]} "
            f"offset={int.from_bytes(entry[:8], signed=True)} codec={codec_name(entry[MAGIC_POSITION + 1])} "
            f"{self._style.faint(f'{len(entry):,} bytes')}"
        )

    def control(self, record: Record) -> str:
        return f"offset={record.offset} {control_type(record)}"

    def record(self, record: Record) -> str:
        line = (
            f"offset={record.offset} timestamp={time_text(record.timestamp)} "
            f"{self._style.field('key')}={self.content(record.key)} "
            f"{self._style.field('value')}={self.content(record.value)}"
        )
        if record.headers:
            headers = ", ".join(f"{quoted(key)}: {self.content(value)}" for key, value in record.headers)
            line += f" {self._style.field('headers')}={{{headers}}}"
        return line

    def content(self, value: bytes | None) -> str:
        """Text where it is text, the beginning in hex where not."""
        if value is None:
            return "null"
        limit = self._max_characters or len(value)
        text = text_of(value, limit)
        if text is None:
            return preview(value, SHOWN_BYTES if self._max_characters else limit)
        if len(value) <= limit:
            return self._style.text(quoted(text))
        return f"{self._style.text(quoted(text))}… {len(value):,} bytes"


def text_of(value: bytes, limit: int) -> str | None:
    """The first `limit` characters; None if it is not text."""
    try:
        # No character has more than four bytes, and one that is cut must not count against the rest.
        text = value.decode() if len(value) <= limit else value[: 4 * limit + 4].decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        if len(value) <= 4 * limit + 4 or error.start < 4 * limit:
            return None
        text = value[: error.start].decode()
    text = text[:limit]
    return text if is_text(text) else None

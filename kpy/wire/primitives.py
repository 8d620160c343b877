"""What the generated codecs share: varints, strings, arrays, tagged sections, and what becomes of malformed bytes.

A reader takes `(buf, pos, end)` and returns a value and the position behind it. `end` is where the message ends; `buf`
may go on behind it with the next frame. A writer appends to a bytearray. All numbers are big-endian.

Bytes are hostile: a length or count is compared with the bytes that remain before anything is allocated for it. For
values of fixed size struct itself refuses to read behind the buffer, and a message that read behind its own `end`, into
the next frame, is refused when it is complete. So a reader can raise any of MALFORMED; the outermost one
turns that into a WireError with `explained`, which finds out what field was being read.
"""

import struct
from collections.abc import Callable, Sequence, Sized
from types import TracebackType
from typing import Any, ClassVar, Final, TypeAlias, TypeVar, cast

from kpy.errors import WireError
from kpy.ids import ID_SIZE

Buffer: TypeAlias = bytes | bytearray | memoryview | Sized
"""An item of an encoded message. One that is none of the first three is a payload that was passed through."""

Records: TypeAlias = Any
"""Record batches. Decoded: a memoryview of the frame, or None. To encode: anything with a length, or None."""

EMPTY: Final[Any] = ()
"""As an argument: a fresh empty list."""

MALFORMED = (WireError, struct.error, IndexError, UnicodeDecodeError)
"""What reading malformed bytes can raise below the outermost reader."""

MAX_STRING_BYTES = 32767
"""What the int16 length of a string could say before flexible versions is its limit in them too."""

MAX_UVARINT_BYTES = 5
"""Lengths, counts and tags are unsigned 32-bit numbers, 7 bits a byte."""

T = TypeVar("T")
Reader: TypeAlias = Callable[[memoryview, int, int], tuple[T, int]]
Writer: TypeAlias = Callable[[T, list[Buffer]], None]

_int16 = struct.Struct(">h")
_int32 = struct.Struct(">i")


# Messages -------------------------------------------------------------------------------------------------------------


class Message:
    """What all generated classes have in common: they are equal when their fields are, and they print their fields."""

    __slots__: ClassVar[tuple[str, ...]] = ()

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__: ClassVar[None]  # pyright: ignore[reportIncompatibleMethodOverride]  # Fields change, so no hash lasts.

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={_shown(self, name)}" for name in self.__slots__)
        return f"{type(self).__name__}({fields})"


class EncodedMessage(Message):
    """A response whose body is encoded already, in the version that was asked for."""

    __slots__: ClassVar[tuple[str, ...]] = ("body",)

    def __init__(self, body: bytes) -> None:
        self.body = body


SECRET_FIELDS = frozenset({"auth_bytes", "hmac", "salt", "salted_password"})
SECRET_CONFIGS = ("password", "secret", "jaas", "keystore.key", "keystore.certificate", "truststore.certificates")
"""In the name of a config: its value is a secret."""


def is_secret(message: Message, field: str) -> bool:
    """Whether the value of this field is never to be printed."""
    if field == "value":
        config = str(getattr(message, "name", ""))
        return any(word in config for word in SECRET_CONFIGS)
    return field in SECRET_FIELDS or "password" in field


def _shown(message: Message, field: str) -> str:
    value = getattr(message, field)
    if value and is_secret(message, field):
        return "<hidden>"
    if isinstance(value, memoryview):
        return f"<{value.nbytes} bytes>"
    return repr(value)


# Reading --------------------------------------------------------------------------------------------------------------


def read_uvarint(buf: memoryview, pos: int, end: int) -> tuple[int, int]:
    """An unsigned varint of at most 32 bits."""
    value = buf[pos]
    if value < 0x80:
        return value, pos + 1
    return long_uvarint(buf, pos + 1, value)


def long_uvarint(buf: memoryview, pos: int, first: int) -> tuple[int, int]:
    """An unsigned varint whose first byte, already read, says that there are more. `pos` is behind that first byte."""
    value = first & 0x7F
    for shift in range(7, 7 * MAX_UVARINT_BYTES, 7):
        byte = buf[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFF, pos
    raise WireError(f"varint longer than {MAX_UVARINT_BYTES} bytes")


def _text(buf: memoryview, pos: int, end: int, length: int) -> tuple[str, int]:
    stop = pos + length
    if length < 0:
        raise WireError("null where null is not allowed" if length == -1 else f"negative length {length}")
    if stop > end:
        raise WireError(f"length {length}, but only {end - pos} bytes remain")
    return str(buf[pos:stop], "utf-8"), stop


def _blob(buf: memoryview, pos: int, end: int, length: int) -> tuple[bytes, int]:
    stop = pos + length
    if length < 0:
        raise WireError("null where null is not allowed" if length == -1 else f"negative length {length}")
    if stop > end:
        raise WireError(f"length {length}, but only {end - pos} bytes remain")
    return buf[pos:stop].tobytes(), stop


def read_string(buf: memoryview, pos: int, end: int) -> tuple[str, int]:
    """A string behind an int16 length."""
    (length,) = _int16.unpack_from(buf, pos)
    return _text(buf, pos + 2, end, length)


def read_nullable_string(buf: memoryview, pos: int, end: int) -> tuple[str | None, int]:
    """A string behind an int16 length, -1 for null."""
    (length,) = _int16.unpack_from(buf, pos)
    if length == -1:
        return None, pos + 2
    return _text(buf, pos + 2, end, length)


def read_compact_string(buf: memoryview, pos: int, end: int) -> tuple[str, int]:
    """A string behind a varint of its length + 1."""
    size = buf[pos]
    pos += 1
    if size >= 0x80:
        size, pos = long_uvarint(buf, pos, size)
    stop = pos + size - 1
    if stop > end or not 0 < size <= MAX_STRING_BYTES + 1:
        raise _bad_size(size, end - pos)
    return str(buf[pos:stop], "utf-8"), stop


def _bad_size(size: int, remaining: int) -> WireError:
    if size == 0:
        return WireError("null where null is not allowed")
    if size > MAX_STRING_BYTES + 1:
        return WireError(f"a string of {size - 1} bytes, but the most is {MAX_STRING_BYTES}")
    return WireError(f"length {size - 1}, but only {remaining} bytes remain")


def read_compact_nullable_string(buf: memoryview, pos: int, end: int) -> tuple[str | None, int]:
    """A string behind a varint of its length + 1, 0 for null."""
    first = buf[pos]
    if first == 0:
        return None, pos + 1
    if first == 0x80:
        # A zero may be written in more bytes than it needs.
        size, after = long_uvarint(buf, pos + 1, first)
        if size == 0:
            return None, after
    return read_compact_string(buf, pos, end)


def read_bytes(buf: memoryview, pos: int, end: int) -> tuple[bytes, int]:
    """Bytes behind an int32 length."""
    (length,) = _int32.unpack_from(buf, pos)
    return _blob(buf, pos + 4, end, length)


def read_nullable_bytes(buf: memoryview, pos: int, end: int) -> tuple[bytes | None, int]:
    """Bytes behind an int32 length, -1 for null."""
    (length,) = _int32.unpack_from(buf, pos)
    if length == -1:
        return None, pos + 4
    return _blob(buf, pos + 4, end, length)


def read_compact_bytes(buf: memoryview, pos: int, end: int) -> tuple[bytes, int]:
    """Bytes behind a varint of their length + 1."""
    size, pos = read_uvarint(buf, pos, end)
    return _blob(buf, pos, end, size - 1)


def read_compact_nullable_bytes(buf: memoryview, pos: int, end: int) -> tuple[bytes | None, int]:
    """Bytes behind a varint of their length + 1, 0 for null."""
    size, pos = read_uvarint(buf, pos, end)
    if size == 0:
        return None, pos
    return _blob(buf, pos, end, size - 1)


def bad_length(field: str, length: int, remaining: int) -> WireError:
    """For record batches whose length is negative or more than what remains."""
    if length < 0:
        return WireError(f"{field} has the length {length}")
    return WireError(f"{field} has the length {length}, but only {remaining} bytes remain")


def bad_tag(tag: int, size: int, used: int) -> WireError:
    """For a tagged field that is longer or shorter than it says."""
    return WireError(f"tag {tag} has {size} bytes, but its value takes {used}")


def bad_count(count: int, remaining: int) -> WireError:
    """For an array of more elements than fit into what remains."""
    if count < 0:
        return WireError("null where null is not allowed" if count == -1 else f"negative count {count}")
    return WireError(f"{count} elements, but only {remaining} bytes remain")


def bad_end() -> WireError:
    """For a message that took bytes from behind its end."""
    return WireError("ends too early")


def read_numbers(buf: memoryview, pos: int, end: int, count: int, code: str) -> tuple[list[Any], int]:
    """`count` numbers of one type, told by its struct character."""
    if count < 0 or count * struct.calcsize(">" + code) > end - pos:
        raise bad_count(count, end - pos)
    layout = f">{count}{code}"
    return list(struct.unpack_from(layout, buf, pos)), pos + struct.calcsize(layout)


def read_uuids(buf: memoryview, pos: int, end: int, count: int) -> tuple[list[bytes], int]:
    """`count` ids of 16 bytes."""
    if count < 0 or count * ID_SIZE > end - pos:
        raise bad_count(count, end - pos)
    stop = pos + count * ID_SIZE
    return [buf[at : at + ID_SIZE].tobytes() for at in range(pos, stop, ID_SIZE)], stop


def read_many(buf: memoryview, pos: int, end: int, count: int, read: Reader[T]) -> tuple[list[T], int]:
    """`count` values of variable size."""
    if count < 0 or count > end - pos:
        raise bad_count(count, end - pos)
    values: list[T] = []
    for _ in range(count):
        value, pos = read(buf, pos, end)
        values.append(value)
    return values, pos


def skip_tags(buf: memoryview, pos: int, end: int, count: int) -> int:
    """Passes over a tagged section nothing in which is known. `count` is its first byte, which `pos` is behind."""
    return read_tags(buf, pos, end, count)[1]


def read_tags(buf: memoryview, pos: int, end: int, count: int) -> tuple[list[tuple[int, int, int]], int]:
    """The tagged fields of a section, as (tag, start, stop). `count` is its first byte, which `pos` is behind."""
    if count >= 0x80:
        count, pos = long_uvarint(buf, pos, count)
    if count * 2 > end - pos:
        raise bad_count(count, end - pos)
    tags: list[tuple[int, int, int]] = []
    last = -1
    for _ in range(count):
        tag, pos = read_uvarint(buf, pos, end)
        size, pos = read_uvarint(buf, pos, end)
        if tag <= last:
            raise WireError(f"tag {tag} behind tag {last}")
        if pos + size > end:
            raise WireError(f"tag {tag} has {size} bytes, but only {end - pos} remain")
        tags.append((tag, pos, pos + size))
        last = tag
        pos += size
    return tags, pos


def decode(
    readers: Sequence[Reader[T] | None], what: str, buf: memoryview, version: int, pos: int, exact: bool = False
) -> tuple[T, int]:
    """Reads with the reader of that version. Raises WireError, also for versions that are not declared.

    Apache Kafka accepts bytes behind a request, and so does this unless it is to be `exact`.
    """
    reader = readers[version] if 0 <= version < len(readers) else None
    if reader is None:
        raise WireError(f"{what} has no version {version}")
    message, after = reader(buf, pos, len(buf))
    if exact and after != len(buf):
        raise WireError(f"{what} v{version}: at byte {after - pos}: {len(buf) - after} bytes too many")
    return message, after


def explained(error: Exception, message: str, begin: int) -> WireError:
    """The WireError for what the reader of a message raised. It names the field, as in `topics[2].name`, and its place,
    counted from where the message begins.

    The trace is the path. Every frame of generated code stands in a line that assigns to the field it is reading, and
    every loop over an array has a list of the `items` that it has completed.
    """
    import linecache  # It brings a tokenizer, which would be half of the time to import a codec.

    path: list[str] = []
    pos = begin
    trace: TracebackType | None = error.__traceback__
    end: int = trace.tb_frame.f_locals["end"] if trace else begin
    has_overrun = False
    while trace is not None:
        frame = trace.tb_frame
        has_overrun |= frame.f_locals.get("pos", 0) > end
        if frame.f_code.co_filename != __file__:
            if "items" in frame.f_locals:
                path.append(f"[{len(frame.f_locals['items'])}]")
            assigned, equals, _ = linecache.getline(frame.f_code.co_filename, trace.tb_lineno).partition(" = ")
            variable = assigned.strip().strip("(").partition(",")[0]
            field = _SCRATCH.get(variable, variable).removesuffix("_")
            if equals and field.isidentifier():
                path.append(f".{field}")
            pos = frame.f_locals["pos"]
        trace = trace.tb_next
    # Behind the end is the next message or nothing, so what was found wrong there is not what is wrong.
    reason = "ends too early" if has_overrun else _REASONS.get(type(error)) or str(error)
    path.append(f" at byte {min(pos, end) - begin}: {reason}")
    return WireError(f"{message}: {''.join(path).lstrip('. ')}")


_SCRATCH = {"pos": "tags", "sections": "tags", "count": "", "length": ""}
"""What it means when one of these variables is assigned to. The others have the names of fields."""


_REASONS: dict[type[Exception], str] = {
    struct.error: "ends too early",
    IndexError: "ends too early",
    UnicodeDecodeError: "not UTF-8",
}


# Writing --------------------------------------------------------------------------------------------------------------

_SMALL_UVARINTS = tuple(bytes([value]) for value in range(0x80))


def uvarint(value: int) -> bytes:
    """An unsigned varint."""
    if value < 0x80:
        return _SMALL_UVARINTS[value]
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def not_null(value: T | None, field: str) -> T:
    """The value of a field that is not nullable in the version being written."""
    if value is None:
        raise WireError(f"{field} may not be null in this version")
    return value


def write_string(out: bytearray, value: str) -> None:
    """A string behind an int16 length."""
    data = value.encode()
    if len(data) > MAX_STRING_BYTES:
        raise _bad_size(len(data) + 1, 0)
    out += _int16.pack(len(data))
    out += data


def write_nullable_string(out: bytearray, value: str | None) -> None:
    """A string behind an int16 length, -1 for null."""
    if value is None:
        out += b"\xff\xff"
    else:
        write_string(out, value)


def write_compact_string(out: bytearray, value: str) -> None:
    """A string behind a varint of its length + 1."""
    data = value.encode()
    if len(data) > MAX_STRING_BYTES:
        raise _bad_size(len(data) + 1, 0)
    out += uvarint(len(data) + 1)
    out += data


def write_compact_nullable_string(out: bytearray, value: str | None) -> None:
    """A string behind a varint of its length + 1, 0 for null."""
    if value is None:
        out.append(0)
    else:
        write_compact_string(out, value)


def write_bytes(out: bytearray, value: bytes) -> None:
    """Bytes behind an int32 length."""
    out += _int32.pack(len(value))
    out += value


def write_nullable_bytes(out: bytearray, value: bytes | None) -> None:
    """Bytes behind an int32 length, -1 for null."""
    if value is None:
        out += b"\xff\xff\xff\xff"
    else:
        write_bytes(out, value)


def write_compact_bytes(out: bytearray, value: bytes) -> None:
    """Bytes behind a varint of their length + 1."""
    out += uvarint(len(value) + 1)
    out += value


def write_compact_nullable_bytes(out: bytearray, value: bytes | None) -> None:
    """Bytes behind a varint of their length + 1, 0 for null."""
    if value is None:
        out.append(0)
    else:
        write_compact_bytes(out, value)


def write_numbers(out: bytearray, values: Sequence[Any], code: str) -> None:
    """Numbers of one type, told by its struct character. Their count has been written."""
    out += struct.pack(f">{len(values)}{code}", *values)


def write_tags(out: bytearray, tags: dict[int, bytearray]) -> None:
    """A tagged section with these values, in ascending order of their tags."""
    out += uvarint(len(tags))
    for tag, value in tags.items():
        out += uvarint(tag)
        out += uvarint(len(value))
        out += value


def encode(writers: Sequence[Writer[T] | None], what: str, message: T, version: int) -> list[Buffer]:
    """Writes with the writer of that version. Raises WireError for versions that are not declared."""
    writer = writers[version] if 0 <= version < len(writers) else None
    if writer is None:
        raise WireError(f"{what} has no version {version}")
    chunks: list[Buffer] = []
    writer(message, chunks)
    return chunks


# Versions in front ----------------------------------------------------------------------------------------------------


def read_version(data: bytes | bytearray | memoryview, what: str) -> tuple[int, int]:
    """The int16 version in front of a key or value, and the position behind it."""
    if len(data) < _int16.size:
        raise WireError(f"{what}: {len(data)} bytes hold no version")
    (version,) = _int16.unpack_from(data)
    return version, _int16.size


def with_version(version: int, body: list[Buffer]) -> bytes:
    """The body behind its version. Nothing that has a version in front holds record batches, so all of it is bytes."""
    return _int16.pack(version) + b"".join(cast(list[bytes], body))

"""`kpy decode`: shows the Kafka frames in hex text, in a file of frames, or in a network capture, as trees.

What the input is shows in its first bytes: a capture has a magic, hex is printable text, and a file of frames begins
with the size of one, whose first byte is zero to six. `--hex`, `--frames` and `--pcap` say it instead.

Frames without addresses are one conversation: what answers a request that was seen is a response, everything else a
request. `--request API VERSION` says that the frames are responses, and to what.
"""

import io
import os
import re
import struct
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import BinaryIO, Final, TextIO

from kpy.cli.arguments import Options
from kpy.cli.capture import Capture
from kpy.cli.frames import (
    MAX_FRAME_BYTES,
    Conversation,
    Frame,
    decode_frame,
    find_api,
    looks_like_request,
    read_request,
    split_frames,
)
from kpy.cli.pcap import CaptureError, is_capture, read_packets
from kpy.cli.style import Style, wants_colour
from kpy.cli.tree import Printer
from kpy.errors import WireError
from kpy.wire.apis import Api

MAX_TEXT_BYTES: Final = 64 * 1024 * 1024
"""More hex than this is not something that was pasted."""

_FAILED: Final = 1
_MISUSED: Final = 2

_DUMP_LINE: Final = re.compile(
    rb"^\s*(?:0x)?[0-9a-f]{4,16}(?::\s+|\s\s+)((?:[0-9a-f]{2})+(?:\s{1,2}(?:[0-9a-f]{2})+)*)(?:\s\s+.*|\s*)$",
    re.IGNORECASE,
)
"""A line of xxd, hexdump -C or tcpdump -X: an offset, the bytes, and them once more as text."""
_DECORATION: Final = re.compile(rb"0x|\\x|[\s:,;|\[\]{}()'\"-]|^b'", re.IGNORECASE)
"""What may stand between the digits of plain hex."""

Request = tuple[Api, int]


class InputError(Exception):
    """The input cannot be read, for the reason given."""


def decode(options: Options) -> int:
    """Prints the frames and returns the exit code: 0 all decoded, 1 not all, 2 called wrongly."""
    try:
        requests = [_request(api, version) for api, version in options.requests]
    except InputError as error:
        print(f"kpy: error: {error}", file=sys.stderr)
        return _MISUSED
    printer = Printer(Style(in_colour=wants_colour(options.color, sys.stdout)), show_records=options.show_records)
    try:
        with _opened(options.input) as file:
            return _decode(file, options.input_format, requests, printer, sys.stdout)
    except (InputError, CaptureError, WireError) as error:
        print(f"kpy: error: {options.input}: {error}", file=sys.stderr)
    except BrokenPipeError:
        # Whoever reads the output has seen enough. Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"kpy: error: {options.input}: {error.strerror}", file=sys.stderr)
    return _FAILED


def _request(name: str, version: str) -> Request:
    api = find_api(name)
    if api is None:
        raise InputError(f"--request {name}: there is no API of this key or name")
    if not version.isdecimal() or not api.min_version <= int(version) <= api.max_version:
        raise InputError(
            f"--request {name} {version}: {api.name} has the versions {api.min_version} to {api.max_version}"
        )
    return api, int(version)


def _opened(name: str) -> io.BufferedReader:
    # Not stdin's own buffer: closing that would close it for everyone.
    return open(sys.stdin.fileno() if name == "-" else name, "rb", closefd=name != "-")


def _decode(
    file: io.BufferedReader, format_: str | None, requests: Sequence[Request], printer: Printer, out: TextIO
) -> int:
    format_ = format_ or _detected(file.peek(16)[:16])
    is_complete = True

    def show(frame: Frame, prefix: str = "") -> None:
        nonlocal is_complete
        decoded = decode_frame(frame)
        is_complete &= not decoded.problem
        for line in printer.lines(frame, decoded, prefix):
            print(line, file=out)
        out.flush()

    if format_ == "pcap":
        capture = Capture()
        for time, source, destination, frame in capture.frames(read_packets(file)):
            show(frame, f"{_clock(time)} {source} > {destination} ")
        for note in capture.notes():
            print(f"kpy: {note}", file=sys.stderr)
    else:
        chunks = _frames_in_hex(file, bool(requests)) if format_ == "hex" else _frames_in(file)
        for frame in _sorted_out(chunks, requests):
            show(frame)
    return 0 if is_complete else _FAILED


def _detected(start: bytes) -> str:
    if not start:
        raise InputError("there is nothing in it")
    if is_capture(start):
        return "pcap"
    if start[0] <= MAX_FRAME_BYTES >> 24:
        return "frames"
    if start.isascii() and all(byte >= 0x20 or byte in b"\t\r\n" for byte in start):
        return "hex"
    raise InputError(
        "neither a capture, nor hex, nor frames with their sizes in front; say which: --pcap, --hex, --frames"
    )


def _clock(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%H:%M:%S.%f")[:-3]


# Frames and hex -------------------------------------------------------------------------------------------------------


def _frames_in(file: BinaryIO) -> Iterator[memoryview]:
    """The frames of a file that has nothing else, one at a time. Raises WireError where it is something else."""
    position = 0
    while head := file.read(4):
        size = struct.unpack(">i", head)[0] if len(head) == 4 else -1
        if len(head) < 4 or not 0 <= size <= MAX_FRAME_BYTES:
            text = (
                f"{len(head)} bytes are too few for the size of a frame" if size == -1 else f"no frame has {size} bytes"
            )
            raise WireError(f"at byte {position}: {text}; is this a file of frames with their sizes in front?")
        data = file.read(size)
        if len(data) < size:
            raise WireError(f"at byte {position}: a frame of {size} bytes, of which {len(data)} are there")
        position += 4 + size
        yield memoryview(data)


def _frames_in_hex(file: BinaryIO, are_responses: bool) -> Iterator[memoryview]:
    """The frames in hex text. In each paragraph, they have their sizes in front, or it is a single one without."""
    text = file.read(MAX_TEXT_BYTES + 1)
    if len(text) > MAX_TEXT_BYTES:
        raise InputError(f"more than {MAX_TEXT_BYTES >> 20} MiB of hex")
    for paragraph in re.split(rb"\n\s*\n", text):
        data = _from_hex(paragraph)
        if data:
            yield from _frames_in_chunk(data, are_responses)


def _from_hex(text: bytes) -> memoryview:
    lines = text.splitlines()
    dumped = [match[1] for line in lines if (match := _DUMP_LINE.match(line))]
    digits = b"".join(_DECORATION.sub(b"", line) for line in dumped or lines)
    try:
        return memoryview(bytes.fromhex(digits.decode("ascii")))
    except (ValueError, UnicodeDecodeError):
        odd = re.search(rb"[^0-9a-fA-F]", digits)
        problem = f"{odd[0].decode('ascii', 'replace')!r} is not a hex digit" if odd else "an odd number of hex digits"
        raise InputError(problem) from None


def _frames_in_chunk(data: memoryview, is_response: bool) -> list[memoryview]:
    try:
        return list(split_frames(data))
    except WireError:
        # Pasted without its size.
        if is_response or looks_like_request(data):
            return [data]
        raise


# Requests and responses -----------------------------------------------------------------------------------------------


def _sorted_out(chunks: Iterator[memoryview], requests: Sequence[Request]) -> Iterator[Frame]:
    """Which frames are requests and which responses."""
    conversation = Conversation()
    for index, data in enumerate(chunks):
        if requests:
            api, version = requests[min(index, len(requests) - 1)]
            yield Frame(data, False, api, version, int.from_bytes(data[:4], signed=True))
            continue
        if conversation.request_of(data) and not _decodes(read_request(data)):
            yield conversation.on_response(data)
            continue
        frame = conversation.on_request(data)
        if frame.problem:
            frame = frame._replace(
                problem=f"{frame.problem}; if this is a response, say to what: --request API VERSION"
            )
        yield frame


def _decodes(frame: Frame) -> bool:
    return not decode_frame(frame).problem

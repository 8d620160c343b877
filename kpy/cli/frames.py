"""What `kpy decode` and `kpy proxy` know about frames: whose they are, and how they are decoded.

A request says itself which API and version it is. A response carries nothing but the correlation id of its request, so
whoever reads responses has to have seen the requests: a `Conversation` is one connection's memory of those that wait
for an answer. Frames here are without the size in front.
"""

import importlib
import struct
from collections import OrderedDict
from collections.abc import Iterator
from types import ModuleType
from typing import Final, NamedTuple

from kpy.errors import WireError
from kpy.wire.apis import APIS, Api
from kpy.wire.header import decode_request_header, decode_response_header
from kpy.wire.layouts import Layouts
from kpy.wire.primitives import Message, decode

MAX_FRAME_BYTES: Final = 100 * 1024 * 1024
"""Apache Kafka's default of socket.request.max.bytes. A size above this is not a frame's."""

MAX_OUTSTANDING: Final = 10_000
"""Requests of one connection whose answers are awaited. Beyond, the oldest is forgotten: it was never answered."""

API_VERSIONS: Final = 18
SASL_HANDSHAKE: Final = 17
CONTROLLED_SHUTDOWN: Final = 7

_REQUEST_HEAD: Final = struct.Struct(">hhi")
_CORRELATION_ID: Final = struct.Struct(">i")
_UNSUPPORTED_VERSION: Final = "0023"


class Frame(NamedTuple):
    """A frame and what tells how to decode it."""

    data: memoryview
    is_request: bool
    api: Api | None
    """None if nobody knows, and then `problem` says why."""
    version: int = -1
    correlation_id: int = -1
    problem: str = ""


class Decoded(NamedTuple):
    """What a frame holds. If it cannot be decoded there is no message, and `problem` says why."""

    message: Message | None = None
    layouts: Layouts | None = None
    version: int = -1
    """Of the message, which is not always that of the request."""
    start: int = 0
    """Where the message begins: behind the header."""
    client_id: str | None = None
    problem: str = ""


def find_api(text: str) -> Api | None:
    """The API of this key, or of this name in any spelling: 3, Metadata, metadata, offset-fetch, OFFSET_FETCH."""
    if text.isdecimal():
        return APIS.get(int(text))
    plain = text.replace("-", "").replace("_", "").lower()
    return next((api for api in APIS.values() if api.name.lower() == plain), None)


def read_request(data: memoryview) -> Frame:
    """A request, as its header says."""
    if len(data) < _REQUEST_HEAD.size:
        return Frame(data, True, None, problem=f"{len(data)} bytes are too few for a request's header")
    key, version, correlation_id = _REQUEST_HEAD.unpack_from(data)
    api = APIS.get(key)
    if api is None:
        return Frame(data, True, None, version, correlation_id, f"API key {key} is unknown")
    problem = ""
    if not api.min_version <= version <= api.max_version:
        problem = f"{api.name} has no version {version}, only {api.min_version} to {api.max_version}"
    return Frame(data, True, api, version, correlation_id, problem)


def looks_like_request(data: memoryview) -> bool:
    """Whether this beginning of a frame may be a request's: of an API that is known, in one of its versions."""
    return len(data) >= _REQUEST_HEAD.size and not read_request(data).problem


class Conversation:
    """The requests of one connection that have not been answered yet."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[int, tuple[Api, int]] = OrderedDict()
        self._raw_tokens = 0
        self._sends_raw_tokens = False
        self.has_begun = False
        """Whether a request has been seen."""

    def on_request(self, data: memoryview) -> Frame:
        """The next frame of the client."""
        self.has_begun = True
        frame = read_request(data)
        if frame.api is None:
            if self._sends_raw_tokens:
                self._raw_tokens += 1
                return frame._replace(problem=f"a SASL token of {len(data)} bytes, without a header")
            return frame
        self._sends_raw_tokens = frame.api.key == SASL_HANDSHAKE and frame.version == 0
        if not _is_unanswered(frame):
            self._waiting[frame.correlation_id] = frame.api, frame.version
            if len(self._waiting) > MAX_OUTSTANDING:
                self._waiting.popitem(last=False)
        return frame

    def request_of(self, data: memoryview) -> tuple[Api, int] | None:
        """The API and version of the request that this beginning of a frame may be the answer to."""
        if len(data) < _CORRELATION_ID.size:
            return None
        return self._waiting.get(_CORRELATION_ID.unpack_from(data)[0])

    def on_response(self, data: memoryview) -> Frame:
        """The next frame of the broker."""
        request = self.request_of(data)
        if request is None:
            if self._raw_tokens:
                self._raw_tokens -= 1
                return Frame(data, False, None, problem=f"a SASL token of {len(data)} bytes, without a header")
            if len(data) < _CORRELATION_ID.size:
                return Frame(data, False, None, problem=f"{len(data)} bytes are too few for a response's header")
            (correlation_id,) = _CORRELATION_ID.unpack_from(data)
            return Frame(data, False, None, -1, correlation_id, "answers a request that was not seen")
        (correlation_id,) = _CORRELATION_ID.unpack_from(data)
        del self._waiting[correlation_id]
        return Frame(data, False, *request, correlation_id)


def _is_unanswered(frame: Frame) -> bool:
    """Whether this is a Produce with acks=0, to which there is no response."""
    if frame.api is None or frame.api.key != 0 or frame.problem:
        return False
    message = decode_frame(frame).message
    return getattr(message, "acks", -1) == 0


def codec_of(api: Api) -> ModuleType:
    """The module of this API's codec."""
    return importlib.import_module(f"kpy.wire.{api.module}")


def is_flexible(api: Api, version: int) -> bool:
    return api.flexible_since is not None and version >= api.flexible_since


def request_header_version(api: Api, version: int) -> int:
    if api.key == CONTROLLED_SHUTDOWN and version == 0:
        return 0
    return 2 if is_flexible(api, version) else 1


def response_header_version(api: Api, version: int) -> int:
    # ApiVersions is answered before the client knows what the broker understands.
    return 1 if is_flexible(api, version) and api.key != API_VERSIONS else 0


def decode_frame(frame: Frame) -> Decoded:
    """The message in a frame. One that is complete but has bytes behind it comes with a problem."""
    api = frame.api
    if api is None or frame.problem:
        return Decoded(problem=frame.problem)
    try:
        codec = codec_of(api)
        client_id = None
        if frame.is_request:
            header, start = decode_request_header(frame.data, request_header_version(api, frame.version))
            client_id, readers, what = header.client_id, codec.REQUEST_READERS, f"{api.name} request"
        else:
            _, start = decode_response_header(frame.data, response_header_version(api, frame.version))
            readers, what = codec.RESPONSE_READERS, f"{api.name} response"
        version = _answered_version(frame, start)
        try:
            message, _ = decode(readers, what, frame.data, version, start, exact=True)
            return Decoded(message, codec.LAYOUTS, version, start, client_id)
        except WireError as error:
            problem = str(error)
        message, _ = decode(readers, what, frame.data, version, start)
        return Decoded(message, codec.LAYOUTS, version, start, client_id, problem)
    except WireError as error:
        return Decoded(problem=str(error))


def _answered_version(frame: Frame, start: int) -> int:
    """The version of the body. An ApiVersions request that the broker does not know is answered in version 0."""
    if frame.is_request or frame.api is None or frame.api.key != API_VERSIONS:
        return frame.version
    return 0 if frame.data[start : start + 2].hex() == _UNSUPPORTED_VERSION else frame.version


def split_frames(data: memoryview) -> Iterator[memoryview]:
    """The frames in bytes where each has its size in front. Raises WireError where that is not so."""
    pos = 0
    while pos < len(data):
        if len(data) - pos < _CORRELATION_ID.size:
            raise WireError(f"at byte {pos}: {len(data) - pos} bytes are too few for the size of a frame")
        (size,) = _CORRELATION_ID.unpack_from(data, pos)
        start = pos + _CORRELATION_ID.size
        if not 0 <= size <= MAX_FRAME_BYTES:
            raise WireError(f"at byte {pos}: a frame cannot have {size} bytes; is this a file of size-prefixed frames?")
        if start + size > len(data):
            raise WireError(f"at byte {pos}: a frame of {size} bytes, of which {len(data) - start} are there")
        yield data[start : start + size]
        pos = start + size

"""Headers."""

from protocol.grammar import Int16, Int32, String, header, inflexible, nullable, since, versions

RequestHeader = header(
    versions("0-2", flexible="2+"),
    "request_api_key" / Int16,
    "request_api_version" / Int16,
    "correlation_id" / Int32,
    since(1, "client_id" / inflexible(nullable(String))),
)

ResponseHeader = header(
    versions("0-1", flexible="1+"),
    "correlation_id" / Int32,
)

"""The headers of requests and responses.

A request has header v2 if its body is flexible, else v1; only ControlledShutdown v0 has v0. A response has header v1 if
its body is flexible, else v0; only ApiVersions always has v0.
"""

from protocol.grammar import Int16, Int32, String, header, inflexible, nullable, since, versions

RequestHeader = header(
    versions("0-2", flexible="2+"),
    "request_api_key" / Int16,
    "request_api_version" / Int16,
    "correlation_id" / Int32,  # the response carries it back
    since(1, "client_id" / inflexible(nullable(String))),  # never compact, so that any broker can read it
)

ResponseHeader = header(
    versions("0-1", flexible="1+"),
    "correlation_id" / Int32,  # of the request
)

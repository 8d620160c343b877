"""Who is asking: what a handler knows of the connection and of the request it is answering."""


class Client:
    """One per connection. `client_id` and `version` are those of the request being answered.

    They may live here, and not in an object a request, because a connection has one request in hand at a time.
    """

    __slots__ = ("client_id", "host", "listener", "software_name", "software_version", "version")

    def __init__(self, host: str, listener: str) -> None:
        self.host = host
        self.listener = listener
        self.client_id = ""
        self.version = 0
        self.software_name = "unknown"
        self.software_version = "unknown"

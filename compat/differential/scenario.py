"""What a scenario is made of: requests in their order, some with placeholders for what earlier answers brought.

A scenario is run once for each version of its API that both brokers serve. A request of that API is sent in this
version, any other one in the highest version common to both brokers, unless the step names a version itself. So the
requests that only set the scene need no thought, and fields that a version does not have are left out by the codec.

Names are in braces: "{t}" is the same new name in every step of one run, for both brokers. What an answer has brought
is kept by `save` and is then used by the same braces, or by Saved("t_id") where the value is no string.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple


class Saved(NamedTuple):
    """Stands in a request for what `save` has kept under this name, for each broker its own."""

    name: str


class Built(NamedTuple):
    """Stands in a request for what is made of what `save` has kept: records of a producer, say."""

    build: Callable[[Mapping[str, Any]], Any]


class Taken(Enum):
    """When the answer to a request is read."""

    AT_ONCE = "at once"
    LATER = "by an Answer step: the broker parks the request"
    NEVER = "never: there is none, as with acks=0"


class Ask(NamedTuple):
    """One request and its answer, which is compared."""

    request: Any
    version: int | None = None
    save: Mapping[str, str] = {}
    """Name -> where in the answer: {"member": "members.0.member_id"}."""
    connection: str = "main"
    until: Callable[[Any], bool] | None = None
    """Asks again until this is true of the answer: for what a broker does behind its answers."""
    taken: Taken = Taken.AT_ONCE


class Answer(NamedTuple):
    """Takes the answer to the oldest request of a connection whose answer is taken LATER."""

    connection: str
    save: Mapping[str, str] = {}


class Send(NamedTuple):
    """Bytes of any kind; compared is whether a response comes, and its bytes, or the connection is closed."""

    data: bytes
    connection: str = "main"


Step = Ask | Answer | Send


class Scenario(NamedTuple):
    """`api` is the key whose versions the scenario runs through; None runs it once.

    Of many scenarios of one kind most are content with `versions`, which say what changes something.
    """

    name: str
    api: int | None
    steps: Sequence[Step]
    versions: Container[int] = range(100)

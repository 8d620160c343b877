"""What the bench writes: values that compress about as real events do."""

import json
import random


def web_shop_events(size: int, rng: random.Random) -> str:
    """Events as a web shop would log them, cut to `size` characters."""
    events: list[str] = []
    length = 0
    while length < size:
        event = {
            "id": rng.getrandbits(40),
            "user": f"user-{rng.randrange(50_000)}",
            "action": rng.choice(("view", "search", "add_to_cart", "purchase")),
            "price": round(rng.lognormvariate(3, 1), 2),
            "country": rng.choice(("DE", "FR", "IT", "NL", "PL", "US")),
        }
        events.append(json.dumps(event, separators=(",", ":")))
        length += len(events[-1])
    return "".join(events)[:size]

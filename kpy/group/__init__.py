"""Consumer groups, as pure state machines: no clock, no randomness of its own, no socket and no file."""

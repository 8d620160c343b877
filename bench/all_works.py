"""All that is measured of one broker, in the order in which it is done and shown."""

from bench.connections import CONNECTION_WORKS
from bench.growth import GROWTH_WORKS
from bench.half_load import HALF_LOAD_WORKS
from bench.history import HISTORY_WORKS
from bench.rows import WORKS
from bench.scale import SCALE_WORKS
from bench.tls import TLS_WORKS
from bench.work import Work

ALL_WORKS: tuple[Work, ...] = (
    *WORKS,
    *TLS_WORKS,
    *SCALE_WORKS,
    *CONNECTION_WORKS,
    *HALF_LOAD_WORKS,
    *HISTORY_WORKS,
    *GROWTH_WORKS,
)

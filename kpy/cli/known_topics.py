"""The topic ids in a broker's own metadata, which a check of its data directory compares with partition.metadata.

The metadata is a SQLite file beside the logs. A copy is read, since reading alone would write beside the original.
"""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing

from kpy.ids import ZERO_ID
from kpy.metadata.znodes import TOPICS, decode_topic
from kpy.storage.data_check import METADATA_FILE
from kpy.storage.findings import Finding, Severity

_WITH_NEWEST_CHANGES = ("", "-wal")
"""What is copied: the file, and the one that newest changes stand in while it is open, and after a crash."""


def known_topic_ids(paths: Sequence[str]) -> tuple[dict[str, bytes], list[Finding]]:
    """Topic ids by name, none if the metadata is elsewhere, and what is wrong with the file. Raises OSError."""
    path = next((found for each in paths if os.path.exists(found := f"{each}/{METADATA_FILE}")), None)
    if path is None:
        return {}, []
    with tempfile.TemporaryDirectory(prefix="kpy-check-") as scratch:
        copy = f"{scratch}/{METADATA_FILE}"
        for suffix in _WITH_NEWEST_CHANGES:
            if os.path.exists(path + suffix):
                shutil.copyfile(path + suffix, copy + suffix)
        try:
            with closing(sqlite3.connect(copy)) as db:
                rows = db.execute("SELECT name, data FROM nodes WHERE parent = ? AND name != ''", (TOPICS,)).fetchall()
            topic_ids = {name: decode_topic(data).topic_id for name, data in rows}
            return {name: topic_id for name, topic_id in topic_ids.items() if topic_id != ZERO_ID}, []
        except (sqlite3.Error, ValueError) as error:
            what = f"cannot be read: {error}"
            return {}, [Finding(Severity.ERROR, path, None, what, "the broker does not start, or not with its topics")]

"""Transcripts: what a state machine is told and what it answers, as text that a person can argue with.

    REWRITE=1 pytest tests/transcripts

writes what the machines say now over what the files expect; the difference is then for the version control to show.
"""

import os

import pytest


@pytest.fixture(scope="session")
def rewrite() -> bool:
    return os.environ.get("REWRITE") == "1"

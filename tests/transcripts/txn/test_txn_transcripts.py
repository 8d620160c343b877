"""Each transcript of this directory, against the transaction machine."""

from pathlib import Path

import pytest
from txn_transcript import Transcript

TRANSCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_the_transaction_machine_does_what_the_transcript_says(path: Path, rewrite: bool) -> None:
    expected = path.read_text()
    happened = Transcript().run(expected)
    if rewrite:
        path.write_text(happened)
    assert happened == path.read_text()

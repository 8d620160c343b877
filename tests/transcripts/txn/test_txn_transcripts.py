"""Each transcript of this directory, against the transaction machine."""

from pathlib import Path

import pytest

from tests.transcripts.transcript import check
from tests.transcripts.txn.txn_transcript import TransactionTranscript

TRANSCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_the_transaction_machine_does_what_the_transcript_says(path: Path, rewrite: bool) -> None:
    check(path, TransactionTranscript().run(path.read_text()), rewrite=rewrite)

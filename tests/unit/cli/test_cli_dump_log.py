"""`kpy dump-log`: what it shows of each kind of file, and what --verify finds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from log_directories import write_data_dir

from kpy.__main__ import main
from kpy.records.batch import NewRecord, build_batch
from kpy.records.legacy import down_convert

Run = Callable[..., tuple[int, str]]
FIRST = f"{0:020d}"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_data_dir(Path("data"))
    return Path("data")


@pytest.fixture
def run(data: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str]:
        code = main(["dump-log", *arguments])
        return code, capsys.readouterr().out

    return run


def objects(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_batches_show_their_headers_and_on_demand_their_records(run: Run) -> None:
    code, out = run("--records", f"data/orders-0/{FIRST}.log")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == f"data/orders-0/{FIRST}.log: segment of orders-0, 1,195 bytes"
    assert lines[1].startswith(
        "  position=0 batch base_offset=0 count=3 codec=none timestamps=2023-11-14T22:13:20.000Z"
    )
    assert "producer_id=7 producer_epoch=0 base_sequence=0 last_offset=2 last_sequence=2 crc=0x" in lines[1]
    assert lines[2] == (
        '    offset=0 timestamp=2023-11-14T22:13:20.000Z key="key 0" value="value 0value 0value 0value 0value 0"'
    )
    assert [word for word in ("gzip", "snappy", "lz4", "zstd") if f"codec={word}" in out] == [
        "gzip",
        "snappy",
        "lz4",
        "zstd",
    ]
    assert "value=<3 bytes: fffe00>" in out
    _, without = run(f"data/orders-0/{FIRST}.log")
    assert "key 0" not in without


def test_markers_show_what_they_end_unasked(run: Run) -> None:
    _, out = run(f"data/orders-0/{FIRST}.log")
    assert "    offset=17 abort coordinator_epoch=7" in out.splitlines()
    assert "    offset=19 commit coordinator_epoch=7" in out.splitlines()
    assert "transactional control" in out


def test_everything_beside_the_segments_is_shown(run: Run) -> None:
    code, out = run("data/orders-0", "data")
    assert code == 0
    for line in (
        "  byte 0: offset index entry offset=5 position=202",
        "  byte 0: time index entry timestamp=2023-11-14T22:13:20.010Z offset=5",
        "  byte 0: aborted transaction producer_id=8 first_offset=16 last_offset=17 last_stable_offset=18",
        "  leader epoch epoch=2 start_offset=15",
        '  topic id topic_id="AAECAwQFBgcICQoLDA0ODw"',
        '  identity broker_id=1 cluster_id="AAAAAAAAAAAAAAAAAAAAAA"',
        '  checkpoint topic="orders" partition=0 offset=28',
    ):
        assert line in out.splitlines()
    assert "  producer producer_id=8 producer_epoch=0 coordinator_epoch=7 current_txn_first_offset=-1" in out


def test_records_of_coordinators_are_decoded(run: Run) -> None:
    _, out = run("--records", "data/__consumer_offsets-3", "data/__transaction_state-1")
    assert 'OffsetCommit group="g" topic="orders" partition=0 -> offset=5 leader_epoch=2 metadata="note"' in out
    assert 'OffsetCommit group="gone" topic="orders" partition=0 removed' in out
    assert 'subscription: ConsumerProtocolSubscription v0 topics=["orders"]' in out
    assert "transaction_status=1 Ongoing" in out
    _, out = run("--records", "--json", "data/__consumer_offsets-3", "data/__transaction_state-1")
    records = [each for each in objects(out) if each["type"] == "record"]
    assert records[1]["value"]["members"][0]["subscription"] == {"topics": ["orders"], "user_data": None}
    assert records[3]["value"]["transaction_status"] == "Ongoing"


def test_offsets_asks_to_decode_what_no_directory_names(run: Run, data: Path) -> None:
    (data / "__consumer_offsets-3" / f"{FIRST}.log").rename(f"{FIRST}.log")
    _, out = run("--records", f"{FIRST}.log")
    assert "OffsetCommit" not in out
    _, out = run("--records", "--offsets", f"{FIRST}.log")
    assert "OffsetCommit" in out


def test_json_has_an_object_for_each_batch_and_record(run: Run) -> None:
    code, out = run("--json", "--records", "--max-characters", "5", f"data/orders-0/{FIRST}.log")
    found = objects(out)
    assert code == 0
    batches = [each for each in found if each["type"] == "batch"]
    assert [each["base_offset"] for each in batches][:3] == [0, 3, 6]
    assert all(each["is_valid"] for each in batches)
    records = [each for each in found if each["type"] == "record"]
    assert [each["offset"] for each in records] == list(range(20))
    assert records[0]["key"] == "key 0"
    assert records[0]["value"] == {"text": "value", "size_bytes": 35}
    assert records[15]["value"] == {"hex": "fffe00"}
    assert records[17]["control"] == "abort"


@pytest.mark.parametrize("magic", [0, 1])
def test_messages_of_old_formats_are_shown_with_their_offsets(run: Run, magic: int) -> None:
    batch = build_batch([NewRecord(1, b"k", b"old"), NewRecord(2, b"k", b"older")], base_offset=40)
    Path(f"{40:020d}.log").write_bytes(down_convert(batch, magic))
    code, out = run("--records", f"{40:020d}.log")
    assert code == 0
    assert f"message magic={magic} offset=41" in out
    assert "offset=41 timestamp" in out
    assert 'value="older"' in out


def test_a_damaged_batch_is_said_and_reading_goes_on_behind_it(run: Run, data: Path) -> None:
    flip(data / "orders-0" / f"{FIRST}.log", 250)
    flip(data / "orders-0" / f"{FIRST}.log", 327 + 8)
    code, out = run("--records", f"data/orders-0/{FIRST}.log")
    assert code == 1
    assert "CRC is wrong" in out
    assert "! at byte 327 " in out
    assert "the next sound one is at byte 471" in out
    assert "offset=19 commit" in out


def test_a_batch_that_is_being_written_is_said(run: Run, data: Path) -> None:
    path = data / "orders-0" / f"{20:020d}.log"
    path.write_bytes(path.read_bytes()[:-10])
    code, out = run(str(path))
    assert code == 0
    assert "! at byte 854 112 bytes of an incomplete batch: it is being written, or was cut off" in out


def test_verify_finds_a_sound_directory_sound(run: Run) -> None:
    code, out = run("--verify", "data/orders-0", f"data/__consumer_offsets-3/{FIRST}.log")
    assert code == 0
    assert out == f"data/orders-0: sound\ndata/__consumer_offsets-3/{FIRST}.log: sound\n"


@pytest.mark.parametrize(
    ("name", "position"), [(f"{FIRST}.log", 100), (f"{FIRST}.index", 3), (f"{FIRST}.timeindex", 5)]
)
def test_verify_names_what_is_damaged(run: Run, data: Path, name: str, position: int) -> None:
    flip(data / "orders-0" / name, position)
    code, out = run("--verify", "--json", f"data/orders-0/{name}")
    findings = [each for each in objects(out) if each["type"] == "finding"]
    assert code == 1
    assert {each["path"] for each in findings} == {f"data/orders-0/{name}"}
    assert objects(out)[-1] == {"type": "verdict", "path": f"data/orders-0/{name}", "is_sound": False}


def test_verify_reads_the_records_too(run: Run) -> None:
    good = build_batch([NewRecord(5, b"k", b"v")])
    wrong = bytearray(good)
    wrong[-1] = 9
    from kpy.records.batch import read_header, replace_header

    Path(f"{FIRST}.log").write_bytes(replace_header(memoryview(bytes(wrong)), read_header(good)))
    code, out = run("--verify", f"{FIRST}.log")
    assert code == 1
    assert "error" in out


@pytest.mark.parametrize("path", ["nowhere", "data/orders-0/strange", "empty"])
def test_what_is_no_file_of_a_log_is_misuse(run: Run, data: Path, path: str) -> None:
    (data / "orders-0" / "strange").write_text("x")
    Path("empty").mkdir()
    assert run(path)[0] == 2


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0x40
    path.write_bytes(content)

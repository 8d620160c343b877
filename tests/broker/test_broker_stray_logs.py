"""Logs that the metadata does not know: set aside with a line in the log, and never deleted."""

import logging
from pathlib import Path

import pytest
from raw_client import Connect, batch, run_with_broker


def fill(data_dir: Path) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("t")
            await client.produce("t", batch(b"kept"))

    run_with_broker(data_dir, test)


def strays(data_dir: Path) -> list[Path]:
    return list(data_dir.glob("*-stray"))


def test_directory_without_its_topic_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path)
    (tmp_path / "t-0").rename(tmp_path / "gone-3")

    async def test(connect: Connect) -> None:
        async with await connect() as client:
            assert (await client.produce("t", batch(b"anew"))).base_offset == 0
            await client.create_topic("gone", partitions=4)

    with caplog.at_level(logging.WARNING):
        run_with_broker(tmp_path, test)
    (stray,) = strays(tmp_path)
    assert stray.name.startswith("gone-3.")
    assert b"kept" in (stray / f"{0:020d}.log").read_bytes()
    assert "gone-3 is set aside" in caplog.text


def test_log_with_another_topic_id_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path)
    metadata = tmp_path / "t-0" / "partition.metadata"
    metadata.write_text("version: 0\ntopic_id: AQIDBAUGBwgJCgsMDQ4PEA")

    async def test(connect: Connect) -> None:
        async with await connect() as client:
            assert (await client.produce("t", batch(b"anew"))).base_offset == 0

    with caplog.at_level(logging.WARNING):
        run_with_broker(tmp_path, test)
    (stray,) = strays(tmp_path)
    assert b"kept" in (stray / f"{0:020d}.log").read_bytes()
    assert "t-0 is set aside" in caplog.text
    assert "by its topic id" in caplog.text

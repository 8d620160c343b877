"""The text of a codec that says which fields each version has, and in what form."""

import pytest

from kpy.wire import fetch, header, produce, streams_group_heartbeat
from kpy.wire.layouts import Form, Layout, Layouts
from protocol import layouts
from protocol.grammar import Int32, String, array, nullable, since, struct, tagged, until


def test_every_version_of_every_message_has_a_layout():
    for version in range(fetch.MIN_VERSION, fetch.MAX_VERSION + 1):
        layout = fetch.LAYOUTS.by_version[f"FetchRequest.{version}"]
        assert layout.is_flexible == (version >= 12)
        assert len(layout.forms) == len(fetch.FetchRequest.__slots__)


def test_a_layout_says_how_each_field_is_sent():
    layout = produce.LAYOUTS.by_version["PartitionProduceResponse.12"]
    forms = dict(zip(produce.PartitionProduceResponse.__slots__, layout.forms, strict=True))
    assert forms["index"] == Form("i", "", False, False, -1)
    assert forms["error_message"] == Form("s", "", False, True, -1)
    assert forms["record_errors"] == Form("T", "BatchIndexAndErrorMessage.9", True, False, -1)
    assert forms["current_leader"] == Form("T", "LeaderIdAndEpoch.10", False, False, 0)
    assert produce.LAYOUTS.by_version["PartitionProduceResponse.9"].forms[-1].code == "-"


def test_a_long_line_goes_on_in_the_next():
    layout = streams_group_heartbeat.LAYOUTS.by_version["StreamsGroupHeartbeatRequest.0"]
    assert len(layout.forms) == len(streams_group_heartbeat.StreamsGroupHeartbeatRequest.__slots__)


def test_headers_have_none():
    assert not hasattr(header, "LAYOUTS")


def test_versions_that_are_alike_share_a_line():
    inner = struct("Inner", since(1, "a" / Int32))
    outer = struct("Outer", until(1, "s" / nullable(String)), "i" / array(inner), since(3, tagged(7, "t" / Int32)))
    text = layouts.Layouts()
    for version in range(5):
        text.add(outer, version, flexible=version >= 3)
    assert text.source().splitlines() == [
        "Inner.0: -",
        "Outer.0: ?s [Inner.0 -",
        "Inner.1-2: i",
        "Outer.1: ?s [Inner.1 -",
        "Outer.2: - [Inner.1 -",
        "Inner.3-4: ~ i",
        "Outer.3-4: ~ - [Inner.3 7:i",
    ]


def test_a_struct_with_two_layouts_in_one_version_cannot_be_told():
    text = layouts.Layouts()
    text.add(struct("S", "a" / Int32), 0, flexible=False)
    text.add(struct("S", "a" / Int32), 0, flexible=True)
    with pytest.raises(ValueError, match="S has two layouts in version 0"):
        text.source()


def test_gaps_between_versions_are_read():
    by_version = Layouts("S.0-1,3: i\nS.2: ~").by_version
    assert set(by_version) == {"S.0", "S.1", "S.2", "S.3"}
    assert by_version["S.3"] == Layout("S", False, (Form("i", "", False, False, -1),))
    assert by_version["S.2"] == Layout("S", True, ())

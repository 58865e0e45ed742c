"""The checker of leaked keys sees what it is there to see."""

from __future__ import annotations

from servers import Server


def test_keys_that_would_live_for_ever_are_found(valkey: Server) -> None:
    lasting = ["afw:v1:t:session:{s}", "afw:v1:t:session:{s}:turns", "afw:v1:t:flow:{f}:entries:3", "afw:v1:t:feed:0"]
    leaked = ["afw:v1:t:session:{s}:flow:f:q:h", "afw:v1:t:team:flow:f:q:{h}", "afw:v1:t:lease:{h}", "afw:v1:t:flow:f"]
    client = valkey.client()
    for key in [*lasting, *leaked, "somebody else's"]:
        client.set(key, "x")
    client.set("afw:v1:t:team:flow:f:q:{g}", "x", ex=10)
    found = valkey.leaks()
    client.delete(*leaked)
    client.close()
    assert sorted(found) == sorted(leaked)


def test_databases_are_all_searched(valkey: Server) -> None:
    client = valkey.client(3)
    client.set("afw:v1:t:lease:{h}", "x")
    found = valkey.leaks()
    client.flushdb()
    client.close()
    assert found == ["afw:v1:t:lease:{h}"]

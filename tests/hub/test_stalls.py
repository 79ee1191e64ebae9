"""A silent connection is told as one, whichever of the two limits ends it."""

from __future__ import annotations

import pytest

from dsollama.errors import TransferError
from dsollama.events import Noted
from dsollama.settings import Patience
from dsollama.sources import ranges
from dsollama.sources.huggingface import HuggingFace
from dsollama.sources.watch import Watch
from dsollama.testing.loopback_hub import Fault

from conftest import TERMINUS, Bench

SHORT, LONG = 0.3, 60.0


@pytest.mark.parametrize(
    ("socket", "watch"), [(SHORT, LONG), (LONG, SHORT)], ids=["socket", "watch"]
)
@pytest.mark.parametrize("came", [0, 1000], ids=["no byte", "some bytes"])
def test_a_silent_connection_has_stalled(
    socket: float, watch: float, came: int, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which limit comes first is a matter of chance where both are the same, as they are."""
    monkeypatch.setattr(ranges, "MAX_FAILURES", 2)
    path = next(iter(bench.repository.files))
    size = bench.shards[0].stat().st_size
    hub = HuggingFace(bench.hub.endpoint)
    reader = hub.reader(TERMINUS, bench.repository.commit, bench.events.append)
    reader.patience = Patience(read=socket, wait=0.1)
    reader._watch = Watch(watch)
    bench.hub.fault = lambda request: Fault(stall_after=came) if request.server == "cdn" else None
    with pytest.raises(TransferError, match="failed 2 times in a row: the connection stalled"):
        reader.read(path, 0, size, size)
    notes = [each.text for each in bench.events if isinstance(each, Noted)]
    assert [each.count("the connection stalled; try 2") for each in notes] == [1]

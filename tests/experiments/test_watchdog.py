"""The steps that processes publish: few values, and the right ones named."""

import pytest

from experiments.distributed import lost_peers
from experiments.distributed import watchdog as watchdog_module
from experiments.distributed.lost_peers import Peers, values_a_beat
from experiments.distributed.watchdog import Watchdog, values_a_tick


class Store:
    """Holds what the processes of one run share, and how many values went in and out."""

    def __init__(self):
        self.values, self.moved = {}, 0

    def process(self, index, count):
        return Process(self, index, count)


class Process:
    def __init__(self, store, index, count):
        self.store, self.index, self.count, self.first = store, index, count, index == 0

    def put(self, key, value, overwrite=False):
        self.store.moved += 1
        self.store.values[key] = value

    def get(self, key):
        self.store.moved += 1
        return self.store.values.get(key)

    def get_all(self, folder):
        found = {
            key.rpartition("/")[2]: value
            for key, value in self.store.values.items()
            if key.startswith(f"{folder}/")
        }
        self.store.moved += len(found)
        return found


@pytest.mark.parametrize("count", [2, 16, 512])
def test_values_are_linear_in_the_processes(count):
    store = Store()
    watchdogs = [Watchdog(store.process(i, count), 600.0) for i in range(count)]
    for _ in range(2):  # the first may sum up before the others have written
        store.moved = 0
        for i, watchdog in enumerate(watchdogs):
            watchdog.heartbeat(7 - (i == 1))
            watchdog.exchange()
    assert store.moved == values_a_tick(count)
    for watchdog in watchdogs:
        assert (watchdog._newest, watchdog._behind) == (7, [1])


def test_the_tick_is_a_tenth_of_the_limit_and_ten_seconds_at_most():
    ticks = [Watchdog(Store().process(0, 2), seconds)._tick for seconds in (2.0, 60.0, 600.0)]
    assert ticks == [0.2, 6.0, 10.0]


def test_a_first_process_that_sums_up_no_more_has_not_answered():
    """Its store may still answer."""
    store = Store()
    first, second = (Watchdog(store.process(i, 2), 600.0) for i in range(2))
    second.exchange()
    begun = second._answered
    first.exchange()
    second.exchange()
    answered = second._answered
    assert answered > begun
    second.exchange()
    assert second._answered == answered
    first.exchange()
    second.exchange()
    assert second._answered > answered


def test_of_many_processes_behind_a_few_are_named(monkeypatch, capsys):
    ended = []
    monkeypatch.setattr(watchdog_module, "exit_process", ended.append)
    watchdog = Watchdog(Store().process(0, 512), 600.0)
    watchdog.heartbeat(4)
    watchdog._end(list(range(1, 9)), 511, "not there 600 s after the first", 4)
    line = capsys.readouterr().err
    assert line.startswith("error: step 4: process 1, process 2,")
    assert "process 8 and 503 more: not there 600 s" in line and len(ended) == 1


@pytest.mark.parametrize(("count", "each"), [(2, 2), (16, 4), (256, 1)])
def test_beats_are_linear_in_the_processes_too(count, each, monkeypatch):
    store = Store()
    peers = [Peers(store.process(i, count)) for i in range(count)]
    for i, one in enumerate(peers):
        one._machine = f"machine {i // each}"
    for _ in range(2):
        store.moved = 0
        for one in peers:
            one.exchange()
    assert store.moved == values_a_beat(count, each)
    assert all(one.lost() == [] for one in peers)


def test_the_first_finds_who_is_silent_and_all_hear_it(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(lost_peers.time, "monotonic", lambda: now[0])
    store = Store()
    peers = [Peers(store.process(i, 3)) for i in range(3)]
    for i, one in enumerate(peers):
        one._machine = f"machine {i}"
    for second in range(15):
        now[0] = float(second)
        for one in peers[: 2 if second > 2 else 3]:
            one.exchange()
    assert [one.lost() for one in peers[:2]] == [[2], [2]]
    assert str(peers[0]._own) in peers[1]._tell([2])  # named, though of another machine

"""Opening associations: whose answer it is."""

from __future__ import annotations

import threading
from types import SimpleNamespace

from pacs_node.delivery.requestor import Checkpoint
from tests.node.support import wait_until


def test_the_thread_of_an_association_says_that_it_goes_on_as_it_goes_on() -> None:
    association = SimpleNamespace(_is_paused=True)
    checkpoint = Checkpoint(association)
    assert checkpoint.is_set() and checkpoint.wait()
    assert not association._is_paused  # whoever sends from now on waits for the next round, in which it rests


def test_the_thread_rests_until_the_sender_has_its_answer() -> None:
    association = SimpleNamespace(_is_paused=True)
    checkpoint = Checkpoint(association)
    checkpoint.clear()
    assert not checkpoint.is_set()
    reactor = threading.Thread(target=checkpoint.wait)
    reactor.start()
    reactor.join(0.05)
    assert reactor.is_alive() and association._is_paused
    checkpoint.set()
    wait_until(lambda: not reactor.is_alive(), "it goes on")
    assert not association._is_paused

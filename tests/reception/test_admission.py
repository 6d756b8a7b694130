from __future__ import annotations

import pytest

from pacs_node.config import AllowedSender
from pacs_node.reception.admission import Admitted, Rejection, Request, Terms, decide

ANY: tuple[AllowedSender, ...] = ()
CT1_NET = AllowedSender.model_validate({"ae_title": "CT1", "network": "10.0.0.0/24"})
CT1_V6 = AllowedSender.model_validate({"ae_title": "CT1", "network": "fd00::/8"})
MR1 = AllowedSender.model_validate({"ae_title": "MR1", "results_to": "archive"})


def request(called: str = "PACS_NODE", calling: str = "CT1", address: str = "10.0.0.7", count: int = 1, room: bool = True) -> Request:
    return Request(called, calling, address, count, room)


@pytest.mark.parametrize(
    ("asked", "senders", "codes"),
    [
        (request(), ANY, None),
        (request(called="SECOND"), ANY, None),
        (request(called=" PACS_NODE "), ANY, None),
        (request(called="OTHER"), ANY, (1, 1, 7)),
        (request(called="pacs_node"), ANY, (1, 1, 7)),
        (request(), (CT1_NET,), None),
        (request(address="10.0.1.7"), (CT1_NET,), (1, 1, 1)),
        (request(address="::ffff:10.0.0.7"), (CT1_NET,), None),
        (request(address="fd00::7"), (CT1_NET,), (1, 1, 1)),
        (request(calling="MR1"), (CT1_NET,), (1, 1, 3)),
        (request(address="fd00::7"), (CT1_NET, CT1_V6), None),
        (request(address="fe80::7%eth0"), (CT1_V6,), (1, 1, 1)),
        (request(calling="CT2"), (CT1_NET,), (1, 1, 3)),
        (request(calling="MR1", address="192.168.9.9"), (CT1_NET, MR1), None),
        (request(count=4), ANY, None),
        (request(count=5), ANY, (2, 3, 2)),
        (request(room=False), ANY, (2, 3, 1)),
        (request(called="OTHER", count=5, room=False), ANY, (1, 1, 7)),
        (request(calling="CT2", count=5, room=False), (CT1_NET,), (1, 1, 3)),
        (request(count=5, room=False), ANY, (2, 3, 2)),
    ],
)
def test_each_request_gets_its_codes(asked: Request, senders: tuple[AllowedSender, ...], codes: tuple[int, int, int] | None) -> None:
    decision = decide(asked, Terms(("PACS_NODE", "SECOND"), senders, 4))
    found = (decision.result, decision.source, decision.reason) if isinstance(decision, Rejection) else None
    assert found == codes


def test_the_entry_that_allows_a_sender_is_named() -> None:
    assert decide(request(calling="MR1"), Terms(("PACS_NODE",), (CT1_NET, MR1), 4)) == Admitted(MR1)
    assert decide(request(calling="MR1"), Terms(("PACS_NODE",), (), 4)) == Admitted(None)


def test_a_rejection_says_what_to_change() -> None:
    decision = decide(request(calling="CT2"), Terms(("PACS_NODE",), (CT1_NET,), 4))
    assert isinstance(decision, Rejection)
    assert "reception.senders" in decision.text and "'CT2'" in decision.text and "10.0.0.7" in decision.text

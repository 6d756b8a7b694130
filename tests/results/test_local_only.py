"""What explains a score on the spot goes into no object: neither shares nor the number of a head, whose worth is the site's own affair."""

from __future__ import annotations

from dataclasses import replace

from pacs_node import results
from pacs_node.records import HeadScore, Hottest
from tests.results.studies import request


def test_objects_are_the_same_whatever_explains_the_score() -> None:
    plain = request()
    assert plain.finding is not None
    explained = replace(
        plain.finding,
        contributions={"reconstruction": 2.1, "latent": 1.117},
        hottest=(Hottest(3, 12, 20, 3.5, {"offset": 3.5}),),
        head=HeadScore(0.93, 40, 30, 0.88),
    )
    with_them = results.build(replace(plain, finding=explained))
    assert [obj.kind for obj in with_them] == ["pm", "sc", "sr"]
    assert [obj.dataset for obj in with_them] == [obj.dataset for obj in results.build(plain)]

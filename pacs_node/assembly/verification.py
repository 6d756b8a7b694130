"""Does the archive have more of a study than is here? Its counts compared with ours (C-FIND at SERIES level, PS3.4 C.6.1.1.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pacs_node.records import ArchiveAnswer, SeriesCount


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the archive lets the study count as complete; why, or what is awaited; and the series of which it surely has more."""

    settled: bool
    words: str
    more: tuple[str, ...] = ()


def compare(
    name: str, answer: ArchiveAnswer | None, here: Mapping[str, int], modalities: Mapping[str, str], own: frozenset[str], wanted: frozenset[str]
) -> Verdict:
    """Compare the counts of archive ``name`` with what is here, for a rule that wants the series ``wanted``.

    A series that is not here at all counts where its modality is that of a wanted one; our results (``own``) never do. One that the archive does
    not count leaves the question open, and quiet time decides. A number counts once two questions in a row brought the same.
    """
    if answer is None or (answer.series is None and not answer.problem):
        return Verdict(False, f"the count of {name}")
    if answer.problem:
        return Verdict(False, f"the count of {name}, which gave none ({answer.problem})")
    assert answer.series is not None
    kinds = {modalities.get(uid, "") for uid in wanted}
    now, before = (_relevant(series, here, own, wanted, kinds) for series in (answer.series, answer.before or ()))
    more = {uid: count - here.get(uid, 0) for uid, count in now.items() if count is not None and count > here.get(uid, 0)}
    same = answer.before is not None and now == before
    if more:
        others = f"{sum(more.values())} more instances that {name} has" + (f" in {len(more)} series" if len(more) > 1 else "")
        return Verdict(False, others, tuple(sorted(more)) if same else ())
    if not answer.fresh:
        return Verdict(False, f"the count of {name}")
    if any(count is None for count in now.values()):
        return Verdict(True, f"{name} does not count its instances")
    if not now:
        return Verdict(same, f"{name} knows nothing of it") if same else Verdict(False, f"a second count of {name}")
    if not same:
        return Verdict(False, f"a second count of {name}")
    return Verdict(True, f"{name} counts {sum(count or 0 for count in now.values())} instances, and all are here")


def _relevant(series: tuple[SeriesCount, ...], here: Mapping[str, int], own: frozenset[str], wanted: frozenset[str], kinds: set[str]) -> dict[str, int | None]:
    found = {}
    for one in series:
        sibling = one.series_uid not in here and (not one.modality or one.modality in kinds)
        if one.series_uid not in own and (one.series_uid in wanted or sibling):
            found[one.series_uid] = one.instances
    return found

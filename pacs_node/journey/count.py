"""Studies that wait for an archive's word → its counts: asked outside of transactions, by a duty of its own for each archive.

The question that a study waits for stands in the database, and so does the answer: a slow archive delays nothing else, and a restart asks on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pacs_node.config import DicomDestination
from pacs_node.database import counts, studies
from pacs_node.database.states import StudyState
from pacs_node.database.tables import CountRow, StudyRow
from pacs_node.delivery.counting import count_series, fetch_series
from pacs_node.errors import TemporaryFailure
from pacs_node.journey import House
from pacs_node.monitoring.logs import study_tag
from pacs_node.records import SeriesCount

MOST_FETCHES = 3  # of one study from one archive: what does not come then comes no more by asking
_FAILURES = 2  # in a row, after which the archive is left alone until the next turn


@dataclass(frozen=True)
class _Question:
    study_id: int
    study_uid: str
    received: int
    fetch: tuple[str, ...]


def ask(house: House, name: str, now: datetime) -> int:
    """Ask an archive about every study whose turn it is; returns how many there were."""
    destination = house.settings.destinations.get(name)
    if not isinstance(destination, DicomDestination):
        return 0
    with house.store.read() as session:
        rows = counts.due(session, name, now)
        questions = [_question(row, session.get_one(StudyRow, row.study_id), counts.received_of(session, row.study_id)) for row in rows]
    failures, problem = 0, ""
    for question in questions:
        series = None
        if failures < _FAILURES:
            series, problem = _answer(house, name, destination, question)
            failures = failures + 1 if problem else 0
        _write_down(house, name, question, series, problem)
    return len(questions)


def _question(row: CountRow, study: StudyRow, received: int) -> _Question:
    return _Question(study.id, study.study_uid, received, tuple(row.fetch) if row.fetched < MOST_FETCHES else ())


def _answer(house: House, name: str, destination: DicomDestination, question: _Question) -> tuple[tuple[SeriesCount, ...] | None, str]:
    ours = house.settings.node.ae_titles[0]
    _fetch(house, name, destination, question)
    try:
        return count_series(destination, ours, question.study_uid), ""
    except TemporaryFailure as error:
        house.log.warning("archive gives no count", archive=name, study=study_tag(question.study_uid), problem=str(error))
        return None, str(error)


def _fetch(house: House, name: str, destination: DicomDestination, question: _Question) -> None:
    """Have the series sent that the archive has more of. It is noted first, so that a crash does not ask for them without end."""
    if not question.fetch:
        return
    with house.store.write() as session:
        row = session.get_one(CountRow, (question.study_id, name))
        row.fetched, row.fetch = row.fetched + 1, []
    subject = f"study {question.study_id}"
    try:
        for series_uid in question.fetch:
            fetch_series(destination, house.settings.node.ae_titles[0], question.study_uid, series_uid)
    except TemporaryFailure as error:
        house.alert("fetch", subject, f"what {name} has more of {subject} could not be fetched: {error}")
    else:
        house.clear("fetch", subject)
        house.log.info("fetched", archive=name, study=study_tag(question.study_uid), series=len(question.fetch))


def _write_down(house: House, name: str, question: _Question, series: tuple[SeriesCount, ...] | None, problem: str) -> None:
    now = house.clock()
    with house.store.write() as session:
        (study,) = studies.lock(session, [question.study_id])
        counts.note(session.get_one(CountRow, (question.study_id, name)), series, problem, question.received, now)
        if study.state is StudyState.RECEIVING:
            study.look_again_at = now

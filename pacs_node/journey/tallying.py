"""What is counted of a job (`monitoring.metrics`)."""

from __future__ import annotations

from pacs_node.analysis.origin import words
from pacs_node.journey import House
from pacs_node.journey.build import Built, Task
from pacs_node.records import Finding

STEP = "pacs_node_job_step_seconds"
NO_BUNDLE = "notice"  # label of what no bundle judged


def bundle_of(task: Task) -> str:
    """Return the label of a task's bundle."""
    return task.pipeline or NO_BUNDLE


def count_end(house: House, task: Task, outcome: str) -> None:
    """Count the end of a run: done, not_analysed, failed or lost."""
    house.counts.add("pacs_node_jobs_ended", bundle_of(task), outcome)


def count_results(house: House, task: Task, built: Built) -> None:
    """Count a run whose results were committed, with its score."""
    count_end(house, task, "done" if built.finding is not None else "not_analysed")
    house.counts.observe("pacs_node_study_results_seconds", value=max(0.0, (house.clock() - task.run.created_at).total_seconds()))
    if built.finding is not None and not task.heartbeat:  # no score of a patient
        _count_score(house, built.finding)


def _count_score(house: House, finding: Finding) -> None:
    labels = (finding.algorithm.name, words(finding.volume.origin))
    house.counts.observe("pacs_node_score", *labels, value=finding.score)
    if finding.percentile is not None:
        house.counts.observe("pacs_node_score_percentile", *labels, value=finding.percentile)

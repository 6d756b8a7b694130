"""Recent scores against the calibration that judged them: an alert where they have drifted, and its end (see `monitoring.drift`)."""

from __future__ import annotations

from pacs_node.analysis.drift import Drift
from pacs_node.database.alerts import open_alerts
from pacs_node.journey import House
from pacs_node.monitoring.drift import OVER, SURE, Watched, watched


def watch_drift(house: House) -> None:
    """Raise an alert for every bundle or scanner whose scores have drifted, and take back those that are over."""
    with house.store.read() as session:
        found = watched(session, house.bundles)
        known = [alert.subject for alert in open_alerts(session) if alert.kind == "drift"]
    for one in found:
        if one.drift is not None and one.drift.p < SURE:
            house.alert("drift", one.subject, sentence(one, one.drift))
    lasting = {one.subject for one in found if one.drift is not None and one.drift.p < OVER}
    for subject in known:
        if subject not in lasting:
            house.clear("drift", subject)


def sentence(one: Watched, drift: Drift) -> str:
    """Say what was expected, what was seen, and what to do."""
    direction, distance = ("higher", drift.higher) if drift.higher >= drift.lower else ("lower", drift.lower)
    return (
        f"the scores of {one.subject} have drifted: of {one.studies} patients since {one.since:%Y-%m-%d} {100 * drift.above:.0f} % were above the threshold, "
        f"at most {100 * drift.expected:.0f} % were expected; scores are {direction} than those of the calibration (distance {distance:.2f}). "
        "Look for a changed scanner, protocol or kind of patients, and calibrate again"
    )

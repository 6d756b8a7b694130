"""Which pipelines a study goes to, and why.

::

    rules.yaml ─► rules.load ─► Rules ┐
                                      ├─► decisions.route ─► Decision, … ─► decisions.jobs ─► JobRequest, …
    headers ─► series.views ─► study ─┘                         └─► explanation.render (for people) · as_json (for pages)

Everything but the reading of the file is a function of its arguments.
"""

from pacs_node.routing.comparison import changes
from pacs_node.routing.decisions import Decision, JobRequest, SeriesTrial, Target, divert, forwards, jobs, route
from pacs_node.routing.explanation import as_json, render
from pacs_node.routing.rules import RoutingRule, Rules, load
from pacs_node.routing.series import SeriesView, view, views

__all__ = [
    "Decision",
    "JobRequest",
    "RoutingRule",
    "Rules",
    "SeriesTrial",
    "SeriesView",
    "Target",
    "as_json",
    "changes",
    "divert",
    "forwards",
    "jobs",
    "load",
    "render",
    "route",
    "view",
    "views",
]

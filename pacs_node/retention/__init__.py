"""Step 7: what may be forgotten. ``policy`` decides by values, ``sweep`` takes files off the disk; the rows stay as tombstones.

::

    studies, jobs, aside ──policy──► kept · warned of · given up ──(row first)──► removals ──sweep──► off the disk
"""

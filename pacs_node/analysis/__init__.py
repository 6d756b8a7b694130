"""Step four: a series becomes a finding.

::

    files ─ pixels · geometry · ct ─► Volume (HU) ─ gate ─► grid ─► network and scores ─► Finding
                                                    ▲                ▲
                                                    └──── bundle ────┘

`pipeline` puts it together; `modalities` is the table of what can be read; `bundle` is the model that an administrator installs.
"""

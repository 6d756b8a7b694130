"""Step four: a series becomes a finding.

::

    files ─ enhanced · stack · (ct, mr, pt, us) ─► Volume ─ intensity · gate ─► grid ─► network and scores ─► Finding
            pixels · geometry · decoding                     ▲                   ▲
                                                             └────── bundle ─────┘

`pipeline` puts it together; `modalities` is the table of what can be read; `bundle` is the model that an administrator installs.
"""

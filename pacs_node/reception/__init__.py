"""Step 1 of the journey: associations come in, acknowledged instances lie in the spool.

::

    association ─► admission ─► listener ─► spool/new/NAME.dcm     (one file an instance, synced before success is answered)
                  (may it?)     (C-STORE)   spool/new/NAME.end     (the association is over)
                                            quarantine/NAME.dcm    (kept, but not accepted as it is)

No database and no model stands in this path: the spool is the write-ahead log of everything that follows.
"""

"""Step 1 of the journey: associations come in, acknowledged instances lie in the spool.

::

    association ─► admission ─► intake ─► spool/new/NAME.dcm     (one file an instance, synced before success is answered)
                  (may it?)     (C-STORE) spool/new/NAME.end     (the association is over)
                                          quarantine/NAME.dcm    (kept, but not accepted as it is)

`listener` starts and stops, `upper_layer` is the network (pynetdicom; C-STORE data by the `fast_path`), `conversation` the seam between it
and `receiver` (associations) and `intake` (objects). No database and no model stands in this path: the spool is the write-ahead log of
everything that follows.
"""

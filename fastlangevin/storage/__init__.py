"""Everything that the package writes to disk and reads back.

:mod:`.files` writes files whole and reads regular files only; :mod:`.container` is the one format, tensors with a JSON
description and digests; :mod:`.checkpoint` holds networks, :mod:`.stopped_chain` chains to go on with,
:mod:`.generations` the last few states of a run, and :mod:`.published` reads the checkpoints of other code bases.
"""

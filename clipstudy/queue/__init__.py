"""The queue: one row a (model, layer, task), claimed in batches under a lease, handed over through an outbox.

``schema`` says which tables there are, ``dialect`` what differs between SQLite and Postgres, ``jobs`` is the face:
every verb about rows. ``outbox`` carries what was computed to whoever records it; ``workers`` is who is at work.
"""

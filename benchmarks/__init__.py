"""How fast the project is, as ratios measured side by side in one run: ``python -m benchmarks``.

Each topic is a module with ``rows(quick)``, which yields :class:`~benchmarks.figures.Row`. What a row is compared with
is the same work written the plain way (:mod:`benchmarks.plain`), or what the machine can do at all.
"""

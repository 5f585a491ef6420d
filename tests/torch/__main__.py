"""A program in a package that tests trust: what names it as a model's code must not run it."""

raise SystemExit("it was run")

"""`python -m clipstudy` is `clipstudy`."""

from clipstudy.cli import main

main()

"""The dashboard's pages, one file each: KIND (its place), TITLE, ``controls`` and ``body``."""

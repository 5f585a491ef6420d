"""clipstudy: what does image-text training do to a model's single-modality representations?

A study (models, layers, tasks) is declared in ``tasks.toml``, turned into rows of one table, run by workers and
recorded in MLflow. ``docs/design/architecture.md`` says which module does what.
"""

__version__ = "0.1.0"

"""clipstudy: what does image-text training do to a model's single-modality representations?

A study (models, layers, tasks) is declared in ``tasks.toml``, turned into rows of one table, run by workers and
recorded in MLflow. The rooms and floors of the house are described in ``docs/design/architecture.md``.
"""

__version__ = "0.1.0"

"""What is shown: views (of `results`) → charts → pages. `records` reads MLflow, `pages/queue` the job table."""

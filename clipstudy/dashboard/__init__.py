"""What is shown: results → tables → charts → pages. `records` reads MLflow, `pages/queue` the job table."""

"""What is shown: results → boards → views → charts → pages. `records` reads MLflow, `pages/queue` the job table."""

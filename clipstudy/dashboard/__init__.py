"""What is shown: results → tables → charts → pages. Reads Results only; knows neither MLflow nor the job table."""

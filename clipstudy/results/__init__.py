"""What is recorded: results → boards (those that count) → views → sheets. No pages and no figures."""

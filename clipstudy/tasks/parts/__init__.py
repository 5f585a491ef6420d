"""What kinds of task are made of: parts that several share, or that would make a kind's own file too long."""

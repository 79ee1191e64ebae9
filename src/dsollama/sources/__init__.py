"""Where a model's files come from: what lists them, and what opens a range of one."""

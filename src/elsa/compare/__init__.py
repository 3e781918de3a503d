"""Methods side by side: the same rows, seeds and budget for all, each run a process of its own."""

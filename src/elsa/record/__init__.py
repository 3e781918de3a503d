"""What a run leaves on the disk: events, metrics, checkpoints; only `checkpoint` needs torch."""

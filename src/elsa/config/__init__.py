"""Settings: what may be set, read and checked; free of torch."""

"""What each party knows and does, as state machines that know neither transport nor schedule."""

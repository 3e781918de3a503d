"""Real machines: the cloud, an edge server and a device, one process each."""

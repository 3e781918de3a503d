"""The protocol: messages, their bytes, and the transports that carry them."""

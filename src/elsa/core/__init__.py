"""Pure parts: tensors in, tensors out; no I/O, no clock, no threads, no global randomness."""

"""The network transport: gRPC streams of frames, under mutual TLS."""

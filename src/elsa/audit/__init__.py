"""Attacks on what an edge server sees, from a transcript and declared knowledge alone."""

"""Metrics and statistics. Arrays in, numbers out; no torch."""

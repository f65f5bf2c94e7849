"""Grids, ablations, the multiverse and tuning: variants of a profile, run as jobs of the same graph."""

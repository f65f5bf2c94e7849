"""The figures: one module per kind, one look for all."""

"""The machine: what it is, what a run used of it, and how it differs from the paper's."""

"""The machine: what it is and what a run used of it."""

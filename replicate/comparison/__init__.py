"""The compare stage: paired differences of columns and their baselines, and the videos that show them."""

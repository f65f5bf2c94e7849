"""The taxonomy: nodes, annotations, label map and what they were derived from."""

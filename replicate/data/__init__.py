"""Reading, indexing, splitting, batching and synthesising datasets."""

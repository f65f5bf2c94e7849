"""Pages for readers: the report, the tree of categories, the generated parts of README.md and PAPER.md."""

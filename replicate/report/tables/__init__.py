"""Tables as Markdown, CSV and LaTeX: Tables 1 and 2, and those of the studies."""

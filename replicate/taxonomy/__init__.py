"""The tree of nodes, how labels were mapped to it, and what shows that the mapping can be trusted."""

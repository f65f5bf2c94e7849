"""Programs that print ratios measured in one run, on whatever machine they are started on."""

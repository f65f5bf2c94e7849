"""Tables, figures, claims and pages, made from records alone."""

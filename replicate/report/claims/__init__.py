"""The paper's claims as executable rows: estimates, rules, verdicts."""

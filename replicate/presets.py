"""Sizes of the baselines by preset: the readings of Table 2 that fit it. One literal table, no behaviour."""

from typing import Any

# Sizes that reproduce the megabytes of Table 2; the paper's unit, which decides between them, is unknown (facts, D).
PRESETS: dict[str, dict[str, Any]] = {
    "C": {},
    "A": {
        "head": (128, 384, 1024),
        "netvlad_width": 736,
        "netvlad_gate": True,
        "transformer_width": 1152,
        "transformer_feedforward": 3072,
        "transformer_layers": 1,
    },
    "B": {
        "head": (1024,),
        "lstm_width": 512,
        "gru_features": "rgb",
        "netvlad_width": 704,
        "transformer_width": 1152,
        "transformer_feedforward": 2560,
        "transformer_layers": 1,
    },
}

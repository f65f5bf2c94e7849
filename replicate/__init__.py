"""The harness: stages that turn records of frames into tables, figures and verdicts."""

__version__ = "0.1.0"

"""Training: the loop, a step of it, its state on disk, several processes at one model, and how long a step takes."""

"""The paper's baselines. A model calls named hooks; a hook that is not filled changes nothing.

A model is called as model(frames, mask) -> logits with frames (batch, time, width) float32, mask (batch, time) bool and
logits (batch, nodes).
"""

"""Results against references, in layers: digests, known answers, results, the paper."""

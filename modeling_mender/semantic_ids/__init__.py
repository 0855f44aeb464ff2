"""From item vectors to semantic IDs: residual k-means, RQ-VAE, spreading, tie-breaking and reports."""

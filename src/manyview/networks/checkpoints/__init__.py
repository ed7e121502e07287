"""Official, packaged and own checkpoints."""

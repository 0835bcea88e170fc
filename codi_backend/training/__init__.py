"""Training: the loop, and one module per stage."""

"""What guides generation: prompts of one token, contexts of many, and their interpolation."""

"""Checkpoint files: reading, writing, inspecting, converting and downloading them."""

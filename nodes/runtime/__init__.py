"""How CoDi runs on ComfyUI's model, memory and sampling machinery; no nodes."""

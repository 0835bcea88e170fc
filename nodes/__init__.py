"""What ComfyUI sees of CoDi; the only code that imports ComfyUI."""

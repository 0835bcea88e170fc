"""A dataset of emoji from public packages: images in several styles, animations, spoken names, instruments."""

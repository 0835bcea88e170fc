"""Checks of user input that all entry points share."""

"""Media files: `read` gives tensors, `write` takes them, `html_report` shows the results of a run."""

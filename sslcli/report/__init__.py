"""The HTML report of a run: read from its directory, drawn by matplotlib, rendered by jinja2."""

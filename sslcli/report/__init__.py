"""The page that a run leaves: read from its directory, drawn by matplotlib, put together by jinja2."""

"""Published data sets, read as their authors ship them."""

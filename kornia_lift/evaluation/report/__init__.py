"""Results as a file, tables, plots and a page."""

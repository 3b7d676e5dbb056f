"""Pictures in folders, tars and tables, decoded on demand."""

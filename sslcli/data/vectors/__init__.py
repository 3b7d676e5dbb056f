"""Tables of numbers and categories as vectors: CSV, TSV, Parquet and NumPy files, and small sets of scikit-learn."""

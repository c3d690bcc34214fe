"""Shards: tar and Parquet files that hold many images each, read one image after another."""

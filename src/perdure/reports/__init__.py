"""What a run leaves for people and programs: files, tables and a picture."""

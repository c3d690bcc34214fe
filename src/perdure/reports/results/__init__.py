"""Result files of runs: writing, checking, reading, grouping."""

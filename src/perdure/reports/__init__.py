"""Reports: result files, tables, figures and pages of runs."""

"""The ``perdure`` command. Modules of a command are imported when it is given."""

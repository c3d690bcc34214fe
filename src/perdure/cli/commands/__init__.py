"""The commands: one file each, its argparse definition beside its handler."""

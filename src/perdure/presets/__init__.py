"""Presets: ``<benchmark>/<method>.toml`` over the keys that ``<benchmark>/_base.toml`` shares."""

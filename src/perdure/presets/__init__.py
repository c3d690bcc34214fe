"""Presets: one TOML file per benchmark, and under ``recipes/`` what several benchmarks share.

How to read them: docs/presets.md. What reads them: `perdure.presets.sections`.
"""

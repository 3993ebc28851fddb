"""Notebooks run strictly, and what they leave: figures, tables, claims, a report. Knows no science."""

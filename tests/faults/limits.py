"""Answers and files without an end, and a machine without room."""

from __future__ import annotations

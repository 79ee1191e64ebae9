"""Weights that are not what they are said to be."""

from __future__ import annotations

"""What is there already: names that somebody has, and spellings that collide."""

from __future__ import annotations

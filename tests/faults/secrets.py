"""Hostile addresses, broken proxies and certificates, and where secrets may not go."""

from __future__ import annotations

"""What tests and the demo share: a Hub on loopback, and tiny models."""

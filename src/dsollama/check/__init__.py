"""The files of a store: are they right, and what repairs them."""

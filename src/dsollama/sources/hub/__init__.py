"""The Hugging Face Hub's own clients: the listing, the token, what they may send where.

`listing` asks through huggingface_hub, whose answers `bounded` bounds.
"""

"""Gated positional self-attention: its maths, and convolutions recast as it."""

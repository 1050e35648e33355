"""Typed results, their files, and what is made of several of them."""

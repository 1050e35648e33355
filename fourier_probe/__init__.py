"""See what a vision model responds to, frequency by frequency and layer by layer."""

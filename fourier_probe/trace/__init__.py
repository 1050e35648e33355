"""What one forward does: calls, additions, layouts, the residual stream."""

"""What makes a model smaller, and what that costs in quality."""

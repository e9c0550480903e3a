"""Results as one page that works offline, and as Markdown and CSV."""

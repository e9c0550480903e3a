"""One package per runtime. A target never imports another."""

"""ExecuTorch: one program for its stock runners, its cache planned once."""

"""The sample models: their corpus, their training, and the folders they are shipped in."""

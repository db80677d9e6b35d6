"""What we know of each host and several patches need: is it a Gemma 4, tiny models, its seams."""

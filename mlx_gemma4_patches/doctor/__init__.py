"""The doctor: what is installed, what was applied and why, and the proof of each patch."""

"""Training of the small embedded model: its corpus, and later its objective and trainer."""

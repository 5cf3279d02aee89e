"""Programs of which a backend runs what it can, and numpy what is between."""

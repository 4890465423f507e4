"""What each of the two contracts calls things, and how it writes them."""

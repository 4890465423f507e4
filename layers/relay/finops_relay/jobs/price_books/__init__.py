"""Price books: a dropped sheet becomes the active price book of its organizations."""

"""Pure codecs between bytes and our words, in both directions. No I/O here."""

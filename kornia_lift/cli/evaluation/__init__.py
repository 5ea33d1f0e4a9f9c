"""Commands that measure features."""

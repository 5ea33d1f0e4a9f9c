"""What a training did to the matching of held-out images: their pairs, the measuring, the decision, the table."""

"""What is measured on a pair of images, and means over pairs with their intervals."""

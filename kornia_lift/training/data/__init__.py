"""Training data: images, SfM models and SIFT keypoints become stores of corresponding frames."""

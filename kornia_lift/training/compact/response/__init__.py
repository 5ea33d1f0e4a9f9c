"""Training of the compact response: crops, their levels, keypoints and matches of both, the stage."""

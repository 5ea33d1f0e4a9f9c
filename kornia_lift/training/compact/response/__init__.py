"""Training of the compact response: levels of warped crops, keypoints and matches of both, the stage."""

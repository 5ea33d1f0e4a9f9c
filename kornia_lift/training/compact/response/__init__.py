"""Training of the response in a scale space: levels of warped crops, keypoints and matches of both, the stage."""

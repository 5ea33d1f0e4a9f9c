"""From folders of images to stores: sources, reconstruction, frames, SIFT keypoints, empty regions."""

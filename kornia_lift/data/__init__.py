"""What training and evaluation read: photographs, homography sequences, posed scenes, SfM models, patches."""

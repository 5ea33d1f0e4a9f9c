"""Features of images as the evaluation reads them: peers, extraction, files."""

"""The compact recipe: orientation and descriptor on 32x32 patches for a trained detector, from views of images."""

"""The stage that trains a dense response from pairs of views."""

"""Keypoints, skeletons and part groupings of articulated objects, learned without labels."""

__version__ = "0.1.0"

"""Offline training of keypoint and skeleton models; run from the checkout with `python -m training`."""

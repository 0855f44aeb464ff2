"""The benchmark as a Hub data set: folder, card, plots, publishing, and ready-made data sets."""

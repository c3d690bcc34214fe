"""Many processes and machines by Ray: predictions of any number of images, and independent runs."""

"""Dense tasks: a class for every position of an image, learnt from masks."""

"""The pocket pictures: scenes, how they are drawn, and the data set made of them."""

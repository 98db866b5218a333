"""The self-check of a cell's pod: a program without libraries, built into an image of its own."""

"""What two texts are to each other: the same, two answers to one question, or neither."""

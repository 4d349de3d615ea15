"""What exists: the matrix, the facts about upstream that it relies on, and what an image tells of its cell."""

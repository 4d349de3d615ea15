"""What exists: the matrix, and the facts about upstream that it relies on."""

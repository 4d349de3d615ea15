"""What is new since yesterday, and what follows from it; watching over channels."""

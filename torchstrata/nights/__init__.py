"""What is new since yesterday, doing what follows, and watching over channels."""

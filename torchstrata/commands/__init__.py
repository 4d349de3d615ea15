"""What sessions and tasks call: words in, tables and exit codes out; one module for each group of verbs."""

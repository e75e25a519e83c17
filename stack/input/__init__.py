"""What people write, read: YAML files and models, and what is wrong there in the words of whoever wrote it."""

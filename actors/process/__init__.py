"""What a process of a stack is to its machine: its pulse and what holds it, its logs, output and strays."""
